"""CascadeSelf on real cascades: the last stage's own answers, and what learns from them."""

import copy
from unittest import mock

import pytest
import torch
from mmdet.structures.bbox import bbox_overlaps, bbox_xyxy_to_cxcywh
from torch import nn

from mmkd.distiller import Distiller
from mmkd.methods.cascade_self import CascadeSelf
from mmkd.teacher import build_model
from mmkd.testing import (
    detection_batch,
    make_trace,
    tiny_cascade_rcnn,
    tiny_faster_rcnn,
    tiny_retinanet,
)


def cascade(**changes):
    torch.manual_seed(0)
    return build_model(tiny_cascade_rcnn(4, **changes))


def distiller(student=None, **options):
    student = cascade() if student is None else student
    return Distiller(student, dict(it=CascadeSelf(**options)), preflight=False)


def step(model):
    torch.manual_seed(0)
    inputs, samples = detection_batch(2, (64, 96), 2)
    found = model.loss(inputs, samples)
    return {key.removeprefix('kd.it.'): value for key, value in found.items()}


def recorded(model):
    torch.manual_seed(0)
    inputs, samples = detection_batch(2, (64, 96), 2)
    with model.recorder.record(inputs) as side:
        model.student(inputs, samples, mode='loss')
    return make_trace({}, inputs=inputs, student_model=model.student), side


@pytest.mark.parametrize('tau', [1.0, 3.0])
def test_the_last_stage_judges_the_regions_of_the_earlier_ones(tau):
    model = distiller(tau=tau)
    trace, trace.student = recorded(model)
    found = model.objectives['it'](trace)
    assert list(found) == ['loss_stage0', 'loss_stage1']
    head = model.student.roi_head
    for stage in range(2):
        own = trace.student[f'roi_head.bbox_head.{stage}'][0].detach()
        rois = trace.student[f'roi_head.bbox_roi_extractor.{stage}@in[1]'][0]
        assert own.shape == (len(rois), 4) and len(rois) > 30
        with torch.no_grad():
            wanted = head._bbox_forward(2, trace.student['neck'], rois)['cls_score']
        p, q = ((z.double() / tau).softmax(1) for z in (wanted, own))
        kl = tau**2 * float((p * (p / q).log()).sum(1).mean())
        assert float(found[f'loss_stage{stage}'].detach()) == pytest.approx(kl, rel=1e-4)


def test_equal_heads_have_nothing_to_learn():
    student = cascade()
    for head in student.roi_head.bbox_head[:2]:
        head.load_state_dict(student.roi_head.bbox_head[2].state_dict())
    found = step(distiller(student))
    assert [float(found[f'loss_stage{i}'].detach()) for i in (0, 1)] == pytest.approx([0, 0])


def test_only_earlier_heads_and_what_they_read_learn():
    model = distiller()
    objective, judged = model.objectives['it'], []
    original = objective.judged
    with mock.patch.object(
        objective, 'judged', lambda *a: judged.append(original(*a)) or judged[-1]
    ):
        loss = sum(step(model)[f'loss_stage{i}'] for i in (0, 1))
    assert not any(x.requires_grad for pair in judged for x in pair)
    loss.backward()
    felt = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert {'roi_head.bbox_head.0.fc_cls.weight', 'roi_head.bbox_head.1.fc_cls.weight'} <= felt
    assert not any(name.startswith('roi_head.bbox_head.2') for name in felt)
    # The neck learns what it would from constant targets.
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if n.startswith('neck')}
    model.zero_grad()
    constants = iter(judged)
    with mock.patch.object(objective, 'judged', lambda *a: next(constants)):
        sum(step(model)[f'loss_stage{i}'] for i in (0, 1)).backward()
    named = dict(model.named_parameters())
    assert grads and all(torch.equal(named[n].grad, g) for n, g in grads.items())


def test_statistics_of_the_last_head_do_not_move():
    config = tiny_cascade_rcnn(4)
    for head in config['roi_head']['bbox_head']:
        head.update(type='ConvFCBBoxHead', num_shared_convs=1, conv_out_channels=8)
        head.update(num_shared_fcs=1, norm_cfg=dict(type='BN'))
    torch.manual_seed(0)
    with_it = distiller(build_model(config))
    alone = copy.deepcopy(with_it.student)
    step(with_it)
    torch.manual_seed(0)
    alone(*detection_batch(2, (64, 96), 2), mode='loss')
    norms = [m for m in alone.roi_head.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 3 and any(m.running_mean.any() for m in norms)
    for key, value in alone.state_dict().items():
        assert torch.equal(value, with_it.state_dict()[key]), key
    assert with_it.student.roi_head.bbox_head[2].training


def test_with_weight_zero_the_student_learns_as_alone():
    alone = cascade()
    torch.manual_seed(0)
    wanted = alone(*detection_batch(2, (64, 96), 2), mode='loss')
    found = step(distiller(weight=0))
    assert found.keys() == wanted.keys()
    assert torch.equal(found['s2.loss_cls'], wanted['s2.loss_cls'])


def test_a_stage_without_regions_adds_nothing():
    model = distiller()
    trace, trace.student = recorded(model)
    empty = [torch.zeros(0, 4, requires_grad=True) for _ in range(2)]
    trace.student.calls['roi_head.bbox_head.0'] = [empty]
    trace.student.calls['roi_head.bbox_roi_extractor.0@in[1]'] = [torch.zeros(0, 5)]
    found = model.objectives['it'](trace)['loss_stage0']
    assert float(found.detach()) == 0 and found.requires_grad


def test_boxes_learn_too():
    """What both heads make of the RoI for the last one's best class; the sheet's weights."""
    factors = dict(classes=1, boxes=5, giou=2)
    model = distiller(factors=factors)
    trace, trace.student = recorded(model)
    trace.samples = detection_batch(2, (64, 96), 2)[1]
    found = model.objectives['it'](trace)
    assert len(found) == 6
    head = model.student.roi_head
    size = torch.tensor([96.0, 64, 96, 64])
    for stage in range(2):
        rois = trace.student[f'roi_head.bbox_roi_extractor.{stage}@in[1]'][0]
        own = trace.student[f'roi_head.bbox_head.{stage}[1]'][0].detach()
        with torch.no_grad():
            last = head._bbox_forward(2, trace.student['neck'], rois)
            sure = last['cls_score'].softmax(1)[:, :3].amax(1)
            boxes = [
                head.bbox_head[i].bbox_coder.decode(rois[:, 1:], deltas) / size
                for i, deltas in ((stage, own), (2, last['bbox_pred']))
            ]
        overlap = bbox_overlaps(*boxes, mode='giou', is_aligned=True, eps=1e-12)
        shift = bbox_xyxy_to_cxcywh(boxes[0]) - bbox_xyxy_to_cxcywh(boxes[1])
        wanted = dict(boxes=5 * shift.abs().mean(1), giou=2 * (1 - overlap))
        for term, values in wanted.items():
            mean = float((sure * values).sum() / sure.sum())
            got = float(found[f'loss_stage{stage}_{term}'].detach())
            assert got == pytest.approx(mean, rel=1e-3)
    sum(v for k, v in found.items() if k.endswith(('boxes', 'giou'))).backward()
    felt = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert 'roi_head.bbox_head.0.fc_reg.weight' in felt
    assert not any(name.startswith('roi_head.bbox_head.2') for name in felt)


def other_classes():
    student = cascade()
    student.roi_head.bbox_head[1].num_classes = 5
    return student


def sigmoid():
    config = tiny_cascade_rcnn(4)
    for head in config['roi_head']['bbox_head']:
        head['loss_cls'] = dict(type='CrossEntropyLoss', use_sigmoid=True)
    return build_model(config)


@pytest.mark.parametrize(
    ('student', 'message'),
    [
        (lambda: cascade(stages=1), 'the student is CascadeRCNN with RPNHead with one box head'),
        (lambda: build_model(tiny_faster_rcnn(4)), 'FasterRCNN with RPNHead with one box head'),
        (lambda: build_model(tiny_retinanet(4)), 'RetinaNet with RetinaHead with no box head'),
        (other_classes, r'different classes, \[3, 5, 3\]'),
        (sigmoid, 'CascadeSelf needs softmax class scores'),
    ],
)
def test_refused(student, message):
    with pytest.raises(ValueError, match=message):
        distiller(student())


def test_heads_that_read_a_semantic_map_are_refused():
    student = cascade()
    with (
        mock.patch.object(type(student.roi_head), 'with_semantic', True, create=True),
        pytest.raises(ValueError, match='CascadeRoIHead also read its semantic_head'),
    ):
        distiller(student)


def test_temperature_is_checked():
    with pytest.raises(ValueError, match='CascadeSelf: temperature tau'):
        CascadeSelf(tau=0)
