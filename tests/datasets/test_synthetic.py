"""The generator: deterministic, consistent, and readable by the real dataset classes."""

import json

import numpy as np
import pytest
from mmengine.registry import DATASETS
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from mmkd.datasets.scenes import CLASSES, PALETTE, generate_scene
from mmkd.datasets.synthetic import MARKER, WRITERS, label_map, main, polygons, write_coco

SMALL = {'n_train': 3, 'n_val': 2, 'size': (96, 64)}


@pytest.fixture(scope='module')
def layouts(tmp_path_factory):
    """Every layout, written once: {name: folder}."""
    root = tmp_path_factory.mktemp('layouts')
    return {name: write(root / name, **SMALL) for name, write in WRITERS.items()}


@pytest.mark.parametrize('label', range(len(CLASSES)))
def test_polygons_reproduce_the_mask_holes_included(label):
    mask = generate_scene(
        np.random.default_rng(1), labels=[label], scale=(0.6, 0.7), centred=True
    ).masks[0]
    runs = coco_mask.merge(coco_mask.frPyObjects(polygons(mask), *mask.shape))
    drawn = coco_mask.decode(runs).astype(bool)
    assert (drawn & mask).sum() / (drawn | mask).sum() > 0.95


def test_label_map_has_ground_classes_and_seam():
    one = generate_scene(np.random.default_rng(2))
    labels = label_map(one)
    assert set(np.unique(labels)) == {0, 255} | {int(label) + 1 for label in one.labels}
    assert (labels == 0).sum() == (~one.masks.any(0)).sum()


def test_coco_layout(layouts):
    config = {
        'type': 'mmdet.CocoDataset',
        'data_root': str(layouts['coco']),
        'ann_file': 'annotations/train.json',
        'data_prefix': {'img': 'train/'},
        'metainfo': {'classes': CLASSES},
        'filter_cfg': {'filter_empty_gt': True, 'min_size': 32},
        'serialize_data': False,
        'pipeline': [
            {'type': 'mmdet.LoadImageFromFile'},
            {'type': 'mmdet.LoadAnnotations', 'with_bbox': True, 'with_mask': True},
            {'type': 'mmdet.PackDetInputs'},
        ],
    }
    dataset = DATASETS.build(config)
    assert len(dataset) == 3
    sample = dataset[0]['data_samples'].gt_instances
    expected = generate_scene(np.random.default_rng([0, 0, 0]), (96, 64))
    assert np.array_equal(sample.bboxes.tensor.numpy(), expected.boxes)
    assert np.array_equal(sample.labels.numpy(), expected.labels)
    assert len(sample.masks) == len(expected.masks)


def test_coco_json_scores_itself_perfectly(layouts):
    """CocoMetric on the written file, fed with the ground truth as predictions."""
    import torch
    from mmdet.evaluation import CocoMetric

    path = layouts['coco'] / 'annotations/val.json'
    coco = COCO(str(path))
    metric = CocoMetric(ann_file=str(path), metric=['bbox', 'segm'])
    metric.dataset_meta = {'classes': CLASSES}
    for image in coco.dataset['images']:
        found = coco.imgToAnns[image['id']]
        boxes = torch.tensor([one['bbox'] for one in found])
        boxes[:, 2:] += boxes[:, :2]
        predictions = {
            'bboxes': boxes,
            'scores': torch.ones(len(found)),
            'labels': torch.tensor([one['category_id'] - 1 for one in found]),
            'masks': [coco.annToRLE(one) for one in found],
        }
        shape = (image['height'], image['width'])
        sample = {'img_id': image['id'], 'ori_shape': shape, 'pred_instances': predictions}
        metric.process({}, [sample])
    scores = metric.evaluate(2)
    assert scores['coco/bbox_mAP'] == scores['coco/segm_mAP'] == 1.0


def test_voc_layout(layouts):
    config = {
        'type': 'mmdet.VOCDataset',
        'data_root': str(layouts['voc']),
        'ann_file': 'VOC2007/ImageSets/Main/test.txt',
        'data_prefix': {'sub_data_root': 'VOC2007/'},
        'metainfo': {'classes': CLASSES, 'palette': PALETTE},
        'serialize_data': False,
        'pipeline': [
            {'type': 'mmdet.LoadImageFromFile'},
            {'type': 'mmdet.LoadAnnotations', 'with_bbox': True},
            {'type': 'mmdet.PackDetInputs'},
        ],
    }
    dataset = DATASETS.build(config)
    assert len(dataset) == 2 and dataset.metainfo['dataset_type'] == 'VOC2007'
    boxes = dataset[1]['data_samples'].gt_instances.bboxes.tensor.numpy()
    expected = generate_scene(np.random.default_rng([0, 1, 1]), (96, 64)).boxes
    # mmdet keeps VOC's last pixel inclusive.
    assert np.array_equal(boxes, expected - np.float32([0, 0, 1, 1]))


def test_cityscapes_layout(layouts):
    config = {
        'type': 'mmseg.CityscapesDataset',
        'data_root': str(layouts['cityscapes']),
        'data_prefix': {'img_path': 'leftImg8bit/train', 'seg_map_path': 'gtFine/train'},
        'serialize_data': False,
        'pipeline': [
            {'type': 'mmseg.LoadImageFromFile'},
            {'type': 'mmseg.LoadAnnotations'},
            {'type': 'mmseg.PackSegInputs'},
        ],
    }
    dataset = DATASETS.build(config)
    assert len(dataset) == 3
    sample = dataset[2]
    expected = generate_scene(np.random.default_rng([0, 0, 2]), (96, 64))
    assert np.array_equal(sample['data_samples'].gt_sem_seg.data[0].numpy(), label_map(expected))
    # PNG is lossless, so the pixels are the generator's own.
    assert np.array_equal(sample['inputs'].permute(1, 2, 0).numpy(), expected.image)


def test_folders_layout(layouts):
    train = {
        path.name: len(list(path.glob('*.jpg')))
        for path in (layouts['folders'] / 'train').iterdir()
    }
    assert train == {'disc': 1, 'square': 1, 'triangle': 1, 'star': 0, 'ring': 0}


def test_first_images_do_not_depend_on_how_many_follow(layouts, tmp_path):
    more = write_coco(tmp_path / 'more', n_train=4, n_val=1, size=(96, 64))
    for name in ('000000.jpg', '000002.jpg'):
        assert (more / 'train' / name).read_bytes() == (
            layouts['coco'] / 'train' / name
        ).read_bytes()


def test_the_number_of_objects_is_chosen(tmp_path, capsys):
    root = tmp_path / 'few'
    main(
        [
            'coco',
            str(root),
            '--train',
            '8',
            '--val',
            '1',
            '--size',
            '96',
            '64',
            '--objects',
            '1',
            '2',
        ]
    )
    found = json.loads((root / 'annotations/train.json').read_text())['annotations']
    counts = [sum(one['image_id'] == i for one in found) for i in range(8)]
    assert {*counts} == {1, 2}
    with pytest.raises(ValueError, match='objects must be two numbers in order'):
        write_coco(tmp_path / 'none', 1, 1, objects=(2, 1))
    with pytest.raises(SystemExit):
        main(['folders', str(tmp_path / 'one'), '--objects', '1', '2'])
    assert 'has one large object' in capsys.readouterr().err


def test_the_size_of_objects_is_chosen(tmp_path, capsys):
    sides = {}
    for scale in ((0.3, 0.4), (0.6, 0.8)):
        write_coco(root := tmp_path / str(scale), 4, 1, size=(96, 64), objects=(1, 1), scale=scale)
        found = json.loads((root / 'annotations/train.json').read_text())['annotations']
        sides[scale] = [max(one['bbox'][2:]) for one in found]
        assert max(sides[scale]) <= 1.15 * scale[1] * 64  # stretched by up to 1.1
    assert max(sides[0.3, 0.4]) < min(sides[0.6, 0.8])
    with pytest.raises(ValueError, match='scale must be two numbers in order, above 0'):
        write_coco(tmp_path / 'none', 1, 1, scale=(0.5, 0.4))
    with pytest.raises(SystemExit):
        main(['folders', str(tmp_path / 'one'), '--scale', '0.3', '0.4'])
    assert 'has one large object' in capsys.readouterr().err


def test_finished_folder_is_left_alone_and_other_wishes_redo_it(tmp_path):
    root = tmp_path / 'data'
    options = ['coco', str(root), '--train', '2', '--val', '1', '--size', '64', '48']
    main(options)
    image = root / 'train/000000.jpg'
    image.write_bytes(b'touched')
    main(options)
    assert image.read_bytes() == b'touched'
    main([*options, '--seed', '1'])
    assert image.read_bytes() != b'touched'
    assert json.loads((root / MARKER).read_text())['seed'] == 1


def test_interrupted_run_leaves_nothing_behind_that_looks_finished(tmp_path, monkeypatch):
    calls = []

    def stop(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return generate_scene(*args)

    monkeypatch.setattr('mmkd.datasets.synthetic.generate_scene', stop)
    with pytest.raises(KeyboardInterrupt):
        write_coco(tmp_path / 'data', 3, 1, size=(64, 48))
    assert not (tmp_path / 'data').exists()
    monkeypatch.undo()
    write_coco(tmp_path / 'data', 3, 1, size=(64, 48))
    assert len(list((tmp_path / 'data/train').iterdir())) == 3
    assert [path.name for path in tmp_path.iterdir()] == ['data']


def test_foreign_folder_is_never_overwritten(tmp_path, layouts, capsys):
    (tmp_path / 'thesis.tex').write_text('precious')
    with pytest.raises(FileExistsError, match='holds other data'):
        write_coco(tmp_path, 1, 1)
    with pytest.raises(FileExistsError, match='give coco a folder of its own'):
        write_coco(layouts['voc'], 1, 1)
    with pytest.raises(SystemExit):
        main(['voc', str(tmp_path)])
    assert 'holds other data' in capsys.readouterr().err
