"""CascadeSelf on real cascades: the last stage's own answers, and what learns from them."""

import copy
from unittest import mock

import pytest
import torch
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
    assert not any(scores.requires_grad for scores in judged)
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
    trace.student.calls['roi_head.bbox_head.0'] = [[torch.zeros(0, 4, requires_grad=True)]]
    trace.student.calls['roi_head.bbox_roi_extractor.0@in[1]'] = [torch.zeros(0, 5)]
    found = model.objectives['it'](trace)['loss_stage0']
    assert float(found.detach()) == 0 and found.requires_grad


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
