"""Targets of every head, as recorded in a training step, against mmdet's own numbers."""

import pytest
import torch
from detection_toys import detector, recorded, samples
from torch import nn

from mmkd.families.assignments import (
    assigner_kind,
    assignment,
    assignment_taps,
    check_assignment,
    target_boxes,
)
from mmkd.families.comparable import Misfit
from mmkd.functional.boxes import iou_matrix
from mmkd.rows import predictions

KINDS = {
    'retinanet': 'AnchorHead',
    'atss': 'ATSSHead',
    'paa': 'PAAHead',
    'gfl': 'GFLHead',
    'fcos': 'FCOSHead',
    'vfnet': 'VFNetHead',
    'tood': 'TOODHead',
    'rtmdet': 'RTMDetHead',
    'yolox': 'YOLOXHead',
}
PLACES = [*KINDS, 'fcos by stride', 'retinanet decoded', 'tood later', 'vfnet fcos']
CHANGES = {
    'fcos by stride': dict(norm_on_bbox=True),
    'retinanet decoded': dict(reg_decoded_bbox=True),
    'vfnet fcos': dict(use_atss=False),
}


@pytest.mark.parametrize('name', [*KINDS, 'frcnn'])
def test_kinds_and_taps(name):
    model = detector(name)
    assert assigner_kind(model) == KINDS.get(name)
    if name == 'paa':
        assert assignment_taps(model) == ['bbox_head.get_targets()', 'bbox_head.paa_reassign()']
    elif name == 'yolox':
        assert assignment_taps(model) == ['bbox_head._get_targets_single()']
    elif name != 'frcnn':
        assert assignment_taps(model) == ['bbox_head.get_targets()']


def test_a_head_with_a_loss_of_its_own_is_unknown():
    model = detector('gfl')
    model.bbox_head.__class__ = type('Own', (type(model.bbox_head),), dict(loss_by_feat=len))
    assert assigner_kind(model) is None and assigner_kind(nn.Identity()) is None
    check_assignment('DenseKD', detector('gfl'))
    with pytest.raises(Misfit, match='DenseKD reads which priors .* targets of the student GFL'):
        check_assignment('DenseKD', model)


@pytest.mark.parametrize('name', PLACES)
def test_positives_and_their_boxes(name):
    """Every object has positives, whose boxes are the ground truth that they belong to."""
    model = detector(name.split()[0], **CHANGES.get(name, {}))
    trace = recorded(model, assignment_taps(model), epoch=5 * name.endswith('later'))
    found = assignment(trace)
    sizes = [(-(-96 // s), -(-128 // s)) for s in (8, 16, 32, 64, 128)]
    levels = model.bbox_head.prior_generator.num_levels
    sizes = dict(enumerate(sizes[:levels]))
    boxes = target_boxes(trace, sizes)
    count = len(predictions.priors(model, sizes, torch.device('cpu')))
    assert found.positive.shape == found.weights.shape == (2, count)
    assert boxes.shape == (2, count, 4)
    assert not found.positive[found.weights == 0].any(), 'what is ignored is no object'
    for image, sample in enumerate(trace.samples):
        truth = sample.gt_instances.bboxes
        own = boxes[image, found.positive[image]]
        overlap = iou_matrix(own, truth.float())
        assert (overlap.amax(1) > 0.999).all(), 'the box of a positive is that of an object'
        assert (overlap.amax(0) > 0.999).any()
    assert float(found.normaliser()) == found.positive.sum(1).clamp(min=1).sum()


@pytest.mark.parametrize('name', KINDS)
def test_without_objects_one_is_counted_for_each_image(name):
    model = detector(name)
    trace = recorded(model, assignment_taps(model), samples((0, 1)))
    found = assignment(trace)
    assert not found.positive.any() and float(found.normaliser()) == 2


def test_padding_and_ambiguous_anchors_are_ignored():
    model = detector('retinanet')
    weights = assignment(recorded(model, assignment_taps(model))).weights
    assert 0 < float(weights.mean()) < 1
