"""The guard on boxes and unreadable files, with the real dataset classes of mmdet and mmseg."""

import copy
import pickle
from multiprocessing.reduction import ForkingPickler

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS
from spoiling import spoil_images
from torch.utils.data import DataLoader

from mmkd.datasets import protection


def edit_xml(root, index, old, new):
    path = root / f'VOC2007/Annotations/{index:06d}.xml'
    path.write_text(path.read_text().replace(old, new))


def spoil_boxes(root):
    """One box without width, one inside out, one outside its image, in three files."""
    for index, box in enumerate([(9, 9, 9, 20), (30, 30, 20, 20), (70, 5, 90, 15)]):
        keys = ('xmin', 'ymin', 'xmax', 'ymax')
        corners = ''.join(f'<{k}>{v}</{k}>' for k, v in zip(keys, box, strict=True))
        one = f'<object><name>disc</name><bndbox>{corners}</bndbox></object></annotation>'
        edit_xml(root, index, '</annotation>', one)


@pytest.mark.parametrize('serialize', [True, False])
def test_degenerate_boxes_of_voc_are_dropped(data, serialize, log):
    root, config = data('voc')
    config['serialize_data'] = serialize
    good = DATASETS.build(config)
    before = [good.get_data_info(i) for i in range(6)]
    spoil_boxes(root)
    dataset = DATASETS.build(config)
    assert protection.audit(dataset)[0].degenerate == 2
    wrapped = DATASETS.build({'type': 'RepeatDataset', 'times': 2, 'dataset': dataset})
    assert protection.drop_degenerate_boxes(wrapped) == 3
    assert [dataset.get_data_info(i) for i in range(6)] == before
    assert '3 image(s)' in log.text and '000000.jpg' in log.text
    assert protection.drop_degenerate_boxes(wrapped) == 0


def test_a_box_without_width_would_be_an_infinite_target():
    """Why they must go: mmdet's own coder and RetinaNet's assigner."""
    from mmdet.models.task_modules import DeltaXYWHBBoxCoder, MaxIoUAssigner
    from mmengine.structures import InstanceData

    anchors = torch.tensor([[0.0, 0, 16, 16], [16, 16, 48, 48]])
    box = torch.tensor([[9.0, 9, 9, 20]])
    truth = InstanceData(bboxes=box, labels=torch.zeros(1, dtype=torch.long))
    assigner = MaxIoUAssigner(0.5, 0.4, min_pos_iou=0)
    assert assigner.assign(InstanceData(priors=anchors), truth).gt_inds.max() == 1
    assert not torch.isfinite(DeltaXYWHBBoxCoder().encode(anchors[:1], box)).all()


def test_boxes_of_test_data_stay(data):
    root, config = data('voc')
    spoil_boxes(root)
    dataset = DATASETS.build({**config, 'test_mode': True, 'filter_cfg': None})
    assert protection.drop_degenerate_boxes(dataset) == 0
    assert protection.audit(dataset)[0].degenerate == 2


def indices(loader):
    return [s.img_id for batch in loader for s in batch['data_samples']]


@pytest.mark.parametrize('workers', [0, 2])
def test_unreadable_training_images_are_replaced_and_counted(data, workers, log):
    root, config = data('coco')
    spoil_images(root)
    dataset = DATASETS.build(config)
    (report,) = protection.protect(dataset)
    assert len(report.missing) == 2 and '2 image files cannot be read' in log.text
    loader = DataLoader(dataset, 2, num_workers=workers, collate_fn=pseudo_collate)
    for _ in range(2):
        seen = indices(loader)
        assert len(seen) == 6 and set(seen) <= {0, 5}
    assert protection.skipped(dataset) == 4
    if not workers:  # workers log on their own
        assert log.text.count('skipped so far') == 3
        # Two of the four are undecodable, and the first three met are named.
        assert 'it cannot be decoded (' in log.text


def test_dataset_of_nothing_but_bad_images_is_an_error(data):
    root, config = data('coco')
    for path in (root / 'train').iterdir():
        path.write_text('no image')
    dataset = DATASETS.build(config)
    protection.tolerate(dataset)
    with pytest.raises(ValueError, match=r'60 images in a row cannot be read(.|\n)*\.jpg'):
        dataset[0]


def test_grey_images_are_good(data):
    root, config = data('coco')
    path = str(root / 'train/000000.jpg')
    cv2.imwrite(path, cv2.imread(path, cv2.IMREAD_GRAYSCALE))
    dataset = DATASETS.build(config)
    protection.protect(dataset)
    assert dataset[0]['inputs'].shape == (3, 48, 64) and protection.skipped(dataset) == 0


@pytest.mark.parametrize('name', ['coco', 'voc', 'cityscapes'])
def test_good_data_and_random_numbers_are_those_of_stock(data, name):
    _, config = data(name)
    stock, guarded = DATASETS.build(config), DATASETS.build(copy.deepcopy(config))
    protection.protect(guarded)
    for index in range(6):
        samples = []
        for dataset in (stock, guarded):
            np.random.seed(index)
            torch.manual_seed(index)
            samples.append(dataset[index]['inputs'])
        assert torch.equal(*samples)
        state = np.random.get_state()[1]
        np.random.seed(index)
        torch.manual_seed(index)
        stock[index]
        assert np.array_equal(state, np.random.get_state()[1])


def test_survives_pickling_copies_subsets_and_a_new_pipeline(data):
    root, config = data('coco')
    spoil_images(root)
    dataset = DATASETS.build({**config, 'serialize_data': True})
    protection.tolerate(dataset)
    protection.tolerate(dataset)
    reloaded = pickle.loads(pickle.dumps(dataset))
    shared = pickle.loads(ForkingPickler.dumps(dataset))  # what a spawned worker receives
    dataset.pipeline = copy.deepcopy(dataset.pipeline)
    for one in (dataset, reloaded, copy.deepcopy(dataset), dataset.get_subset([0, 2, 5]), shared):
        assert one.prepare_data.dataset is one
        assert one[2 if len(one) == 6 else 1]['inputs'].shape == (3, 48, 64)
    assert protection.skipped(dataset) >= 1


def test_every_dataset_inside_wrappers_is_guarded_once(data):
    _, config = data('coco')
    one, two = DATASETS.build(config), DATASETS.build(config)
    both = {'type': 'ConcatDataset', 'datasets': [one, two, one]}
    balanced = {'type': 'ClassBalancedDataset', 'dataset': one, 'oversample_thr': 0.1}
    assert len(protection.protect(DATASETS.build(both))) == 2
    assert len(protection.protect(DATASETS.build(balanced))) == 1
    assert type(one.prepare_data) is type(two.prepare_data) is protection._Prepare
