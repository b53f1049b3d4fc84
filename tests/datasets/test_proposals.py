"""Proposals: files that are refused, boxes that follow the image, labels without boxes."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.datasets.transforms import PackDetInputs, RandomFlip, Resize

from mmkd.checks.pipelines import check_pipelines
from mmkd.datasets import GridProposals, ImageLabels, LoadProposals, ProposalsToImage
from mmkd.datasets.proposals import read_proposals
from mmkd.registry import TRANSFORMS

BOXES = np.array([[2, 4, 12, 10], [0, 0, 40, 20], [30, 5, 40, 18]], np.float32)


def entry(boxes=BOXES):
    return dict(bboxes=boxes, scores=np.linspace(1, 0, len(boxes), dtype=np.float32))


def file_of(folder, content):
    path = folder / 'proposals.pkl'
    path.write_bytes(pickle.dumps(content))
    return str(path)


def image(**more):
    pixels = np.zeros((20, 40, 3), np.uint8)
    return dict(
        img=pixels, img_path='/data/train/a.jpg', img_shape=(20, 40), ori_shape=(20, 40), **more
    )


def test_a_file_is_read_by_folder_and_name(tmp_path):
    load = LoadProposals(file_of(tmp_path, {'train/a.jpg': entry()}), most=2)
    found = load(image())
    assert np.array_equal(found['proposals'], BOXES[:2])
    assert found['proposals_scores'].tolist() == [1.0, 0.5]


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='there is no file .*none.pkl. python -m mmkd'):
        LoadProposals(str(tmp_path / 'none.pkl'))


class Harmful:
    def __reduce__(self):
        return print, ('run',)


def test_a_file_that_would_run_code_is_refused(tmp_path, capsys):
    with pytest.raises(ValueError, match='no pickle of arrays: it asks for builtins.print'):
        read_proposals(file_of(tmp_path, {'train/a.jpg': Harmful()}))
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ([BOXES], 'holds list, not a mapping'),
        ({'train/a.jpg': BOXES}, r'dict\(bboxes=\(n, 4\), scores=\(n,\)\) for train/a.jpg'),
        ({'train/a.jpg': dict(bboxes=BOXES)}, r'bboxes \(3, 4\) and scores \(\)'),
        ({'train/a.jpg': dict(bboxes=BOXES[:, :3], scores=np.ones(3))}, r'bboxes \(3, 3\)'),
        ({'train/a.jpg': entry(np.full((3, 4), np.nan))}, r'finite boxes .* found \[nan'),
        (
            {'train/a.jpg': entry(BOXES), 'train/b.jpg': entry(np.array([[30, 5, 10, 13]]))},
            r'found \[30, 5, 10, 13\] for train/b.jpg. Boxes \(x, y, w, h\) need',
        ),
    ],
)
def test_files_of_another_form_are_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        read_proposals(file_of(tmp_path, content))


def dataset(load, *names, **size):
    infos = [dict(img_path=f'/data/train/{name}', **size) for name in names]

    class Dataset:
        pipeline = SimpleNamespace(transforms=[object(), load])
        get_data_info = staticmethod(infos.__getitem__)

        def __len__(self):
            return len(infos)

    return Dataset()


def test_images_that_are_not_in_the_file_stop_before_training(tmp_path):
    load = LoadProposals(file_of(tmp_path, {'train/a.jpg': entry()}))
    check_pipelines(dataset(load, 'a.jpg'))
    message = '2 of 3 images, the first of them train/b.jpg; it has 1 images, such as train/a.jpg'
    with pytest.raises(ValueError, match=message):
        check_pipelines(dataset(load, 'a.jpg', 'b.jpg', 'c.jpg'))
    with pytest.raises(ValueError, match='no proposals of an image, the first of them train/b.jpg'):
        load(image() | dict(img_path='/data/train/b.jpg'))


def test_boxes_of_resized_images_stop_before_training(tmp_path):
    load = LoadProposals(file_of(tmp_path, {'train/a.jpg': entry()}))
    check_pipelines(dataset(load, 'a.jpg', width=35, height=12))
    for size, box in ((34, 12), '30.0, 5.0, 40.0, 18.0'), ((36, 9), '0.0, 0.0, 40.0, 20.0'):
        message = rf'box \[{box}\] for train/a.jpg, whose centre is outside of its {size[0]} x'
        with pytest.raises(ValueError, match=message):
            check_pipelines(dataset(load, 'a.jpg', width=size[0], height=size[1]))


def test_a_class_in_every_image_is_warned_of(monkeypatch):
    said = []
    monkeypatch.setattr('mmkd.datasets.proposals.print_log', lambda text, **_: said.append(text))
    data = dataset(ImageLabels(), 'a.jpg', 'b.jpg')
    data.metainfo = dict(classes=('cat', 'dog'))
    for info, labels in ((0, (0, 1)), (1, (1, 1))):
        data.get_data_info(info)['instances'] = [dict(bbox_label=label) for label in labels]
    check_pipelines(data)
    assert len(said) == 1 and 'every one of the 2 images shows class dog' in said[0]


def test_a_file_without_a_box_stops_before_training(tmp_path):
    empty = entry(BOXES[:0])
    load = LoadProposals(file_of(tmp_path, {'train/a.jpg': empty, 'train/b.jpg': entry()}))
    check_pipelines(dataset(load, 'a.jpg', 'b.jpg'))
    with pytest.raises(ValueError, match='has no box for any of the 1 images'):
        check_pipelines(dataset(load, 'a.jpg'))


@pytest.mark.parametrize('direction', ['horizontal', 'vertical', 'diagonal', None])
def test_boxes_follow_what_mmdet_does_to_the_image(direction):
    results = image(proposals=BOXES, proposals_scores=np.ones(3, np.float32))
    corner = np.zeros((20, 40, 3), np.uint8)
    corner[4:10, 2:12] = 255  # the first box
    results = Resize(scale=(80, 60), keep_ratio=False)(results | dict(img=corner))
    if direction:
        results = RandomFlip(prob=1.0, direction=direction)(results)
    boxes = ProposalsToImage()(results)['proposals']
    rows, columns = (np.flatnonzero((results['img'][..., 0] > 127).any(k)) for k in (1, 0))
    wanted = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    assert boxes[0].tolist() == pytest.approx(wanted, abs=0.01)
    assert boxes[1].tolist() == pytest.approx([0, 0, 80, 60])


def test_they_are_packed():
    results = GridProposals()(image())
    packed = PackDetInputs()(ProposalsToImage()(results))['data_samples']
    assert packed.proposals.bboxes.dtype == torch.float32
    assert len(packed.proposals.scores) == len(packed.proposals.bboxes) > 100


def test_no_proposals_to_move_and_unknown_directions_are_refused():
    with pytest.raises(ValueError, match='ProposalsToImage: no proposals. Put mmkd.LoadProposals'):
        ProposalsToImage()(image())
    with pytest.raises(ValueError, match="flip_direction 'up' is not known"):
        ProposalsToImage()(image(proposals=BOXES, flip=True, flip_direction='up'))


def test_a_grid_covers_the_image_from_edge_to_edge():
    boxes = GridProposals(scales=[0.5], ratios=[1.0], step=0.5).boxes(20, 40)
    assert len(boxes) == 3 * 7
    assert np.allclose(boxes[:, 2:] - boxes[:, :2], 10)
    assert boxes.min(0).tolist()[:2] == [0, 0] and boxes.max(0).tolist()[2:] == [40, 20]
    large = GridProposals(scales=[2.0], ratios=[1.0]).boxes(20, 40)
    assert large.tolist() == [[0, 0, 40, 20]]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(scales=[]), 'scales must have at least one number'),
        (dict(ratios=[0]), 'GridProposals: ratios must be a finite number above 0'),
        (dict(step=0), 'step'),
    ],
)
def test_options_of_the_grid_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        TRANSFORMS.build(dict(type='mmkd.GridProposals', **options))


def test_labels_stay_and_boxes_go():
    found = ImageLabels()(
        image(
            gt_bboxes=BOXES,
            gt_bboxes_labels=np.array([2, 0, 1]),
            gt_ignore_flags=np.array([False, False, True]),
            gt_masks='masks',
        )
    )
    assert not {'gt_bboxes', 'gt_masks', 'gt_ignore_flags'} & {*found}
    assert found['gt_bboxes_labels'].tolist() == [0, 2]
    sample = PackDetInputs()(found)['data_samples']
    assert sample.gt_instances.labels.tolist() == [0, 2] and 'bboxes' not in sample.gt_instances


def test_without_annotations_there_are_no_labels():
    with pytest.raises(ValueError, match='ImageLabels: no labels. Put LoadAnnotations'):
        ImageLabels()(image())
