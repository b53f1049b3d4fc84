"""tools/visualize.py on tiny detectors and segmentors: padding, splits, untrained networks."""

import cv2
import numpy as np
import pytest
import torch
from mmdet.datasets import transforms
from mmengine.registry import init_default_scope

from mmkd.pixels import Pixels
from mmkd.plan.recording import record
from mmkd.visualization.page import pixel_values
from mmkd.visualization.shown import restore
from mmkd.visualization.viewer import Viewer, annotations_first, build_dataset


def run(config, split, indices):
    viewer = Viewer(config, split)
    inputs, samples = viewer.load(indices)
    shown = restore(inputs, samples, Pixels.of(viewer.student), viewer.dataset.metainfo)
    return viewer, inputs, samples, shown


def test_masks_follow_the_objects_in_a_padded_batch(detector):
    """Every object's centre is near a cell of its mask; looking changes no weight."""
    viewer, inputs, samples, shown = run(detector, 'train', [0, 1, 2, 3])
    before = {k: v.clone() for k, v in viewer.model.state_dict().items()}
    assert len({one.image.shape for one in shown}) > 1
    assert not viewer.model.training  # what is drawn was recorded in eval mode
    views = viewer.model.objectives['fgfi'].views(record(viewer.model, inputs, samples)['fgfi'])
    masks = [view for view in views if view.kind == 'mask']
    assert [view.stride for view in masks] == [8, 16, 32]
    for one, sample in zip(shown, samples, strict=True):
        covered = np.zeros(one.image.shape[:2], bool)
        for view in masks:
            mask = (pixel_values(view, one) > 0.5).astype(np.uint8)
            reach = np.ones((view.stride + 1,) * 2, np.uint8)  # half a cell in each direction
            covered |= cv2.dilate(mask, reach).astype(bool)
        centres = sample.gt_instances.bboxes.view(-1, 2, 2).mean(1).round().long()
        for x, y in centres.tolist():
            assert covered[min(y, covered.shape[0] - 1), min(x, covered.shape[1] - 1)]
    after = viewer.model.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_val_boxes_follow_the_resized_image(detector):
    detector.val_dataloader.dataset.pipeline[1].scale_factor = 2.0
    _, _, samples, shown = run(detector, 'val', [0])
    assert shown[0].image.shape[:2] == (144, 192)
    boxes = samples[0].gt_instances.bboxes
    assert float(boxes[:, 2:].max()) > 96


def test_pages_of_a_detector(detector, tmp_path):
    paths = list(Viewer(detector, 'val').pages([0, 1], tmp_path))
    assert sorted(path.name for path in paths) == [
        f'{name}_{i:06d}_{i:06d}.png' for name in ('cwd', 'fgfi', 'kd') for i in (0, 1)
    ]
    assert all(cv2.imread(str(path)) is not None for path in paths)


@pytest.mark.parametrize('split', ['train', 'val'])
def test_pages_of_a_segmentor(segmentor, tmp_path, split):
    paths = list(Viewer(segmentor, split).pages([0, 1], tmp_path))
    assert sorted(path.name.split('_')[0] for path in paths) == sorted(
        ['cwd', 'kd', 'predictions'] * 2
    )


def test_what_is_like_one_pixel(segmentor, tmp_path):
    """The place asked for reaches the objective; others show what they always show."""
    segmentor.model.objectives = dict(pair=dict(type='mmkd.SKDPair'), cwd=dict(type='mmkd.CWD'))
    pictures = {}
    for point in (None, (4, 4), (70, 60.5)):
        folder = tmp_path / str(point)
        for path in Viewer(segmentor, point=point).pages([0], folder):
            pictures.setdefault(path.name.split('_')[0], []).append(cv2.imread(str(path)))
    first, *others = pictures['pair']
    assert all((first != other).any() for other in others) and (others[0] != others[1]).any()
    assert all(np.array_equal(pictures['cwd'][0], other) for other in pictures['cwd'][1:])
    for point in ((80, 10), (10, -1)):
        with pytest.raises(ValueError, match='outside of the input of 80 x 64 pixels'):
            list(Viewer(segmentor, point=point).pages([0], tmp_path))


def test_a_plain_segmentor_shows_its_predictions_once_it_has_weights(segmentor, tmp_path):
    segmentor.model = segmentor.model.student
    names = [path.name.split('_')[0] for path in Viewer(segmentor).pages([0], tmp_path)]
    assert names == ['data']
    torch.save(dict(state_dict=Viewer(segmentor).model.state_dict()), tmp_path / 'plain.pth')
    viewer = Viewer(segmentor, checkpoint=str(tmp_path / 'plain.pth'))
    names = [path.name.split('_')[0] for path in viewer.pages([0], tmp_path)]
    assert names == ['predictions', 'data']


def test_a_plain_config_shows_its_data(detector, tmp_path):
    detector.model = detector.model.student
    (path,) = Viewer(detector).pages([2], tmp_path)
    assert path.name.startswith('data_000002')


def test_a_checkpoint_brings_what_objectives_learned(detector, tmp_path):
    first = Viewer(detector)
    for parameter in first.model.parameters():
        parameter.data.add_(0.01)
    path = tmp_path / 'student.pth'
    torch.save(dict(state_dict=first.model.state_dict()), path)
    second = Viewer(detector, checkpoint=str(path))
    wanted, found = first.model.state_dict(), second.model.state_dict()
    assert any(key.startswith('objectives.') for key in wanted)
    assert all(torch.equal(wanted[key], found[key]) for key in wanted)


@pytest.mark.parametrize(
    ('options', 'indices', 'message'),
    [(dict(split='test'), [0], 'split must be one of'), (dict(), [0, 99], r'indices \[99\]')],
)
def test_refusals(detector, tmp_path, options, indices, message):
    with pytest.raises(ValueError, match=message):
        list(Viewer(detector, **options).pages(indices, tmp_path))


@pytest.mark.parametrize(
    'loads', ['LoadAnnotations', 'mmdet.LoadPanopticAnnotations', transforms.LoadAnnotations]
)
def test_annotations_are_loaded_before_the_image_is_resized(loads):
    """Whatever loads them, given by name or as a class."""
    names = ['LoadImageFromFile', 'Resize', loads, 'PackDetInputs']
    steps = annotations_first([dict(type=name) for name in names])
    assert [step['type'] for step in steps] == [names[0], names[2], names[1], names[3]]
    assert annotations_first([dict(type='mmdet.LoadImageFromFile')]) != []


def test_wrapped_datasets_are_reordered_too(detector):
    inner = detector.val_dataloader.dataset
    resize = dict(type='mmdet.Resize', scale=(48, 36))
    inner.pipeline.insert(1, resize)
    detector.val_dataloader.dataset = dict(type='ConcatDataset', datasets=[inner])
    init_default_scope('mmdet')
    item = build_dataset(detector, 'val')[0]
    boxes = item['data_samples'].gt_instances.bboxes.tensor
    assert boxes[:, 2].max() <= 48 and boxes[:, 3].max() <= 36


def test_a_set_without_images_has_nothing_to_draw(detector):
    config = detector.copy()
    config.train_dataloader.dataset = dict(type='mmkd.NoImages', length=4)
    with pytest.raises(ValueError, match='The train set has no images to draw'):
        Viewer(config)
