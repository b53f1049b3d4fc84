"""MimicHead: the teacher's class and box outputs of the RoIs that the student samples."""

import copy

import pytest
import torch
from detection_toys import detector, samples, step, total
from torch.nn import functional as F

from mmkd.families import two_stage
from mmkd.methods.mimic_head import MimicHead


def test_same_network():
    student = detector('frcnn')
    losses, _ = step(MimicHead(), student, copy.deepcopy(student), train=False)
    assert float(total(losses).detach()) == pytest.approx(0, abs=1e-9)


def test_both_terms():
    student, teacher = detector('frcnn'), detector('frcnn', 1)
    losses, trace = step(MimicHead(factors=dict(classes=2, boxes=3)), student, teacher)
    rois = trace.student[two_stage.rois_tap(student)][0]
    wanted = two_stage.roi_outputs(teacher, trace.teacher['neck'], rois)
    found = trace.student['roi_head.bbox_head']
    torch.testing.assert_close(losses['kd.o.loss_classes'], 2 * F.mse_loss(found[0], wanted[0]))
    torch.testing.assert_close(losses['kd.o.loss_boxes'], 3 * F.mse_loss(found[1], wanted[1]))
    losses, _ = step(MimicHead(), student, teacher, samples((0, 1)))
    assert total(losses).isfinite()


def other_coder():
    coder = dict(type='DeltaXYWHBBoxCoder', target_stds=[0.05, 0.05, 0.1, 0.1])
    return detector('frcnn', bbox_coder=coder)


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: MimicHead(factors=dict(boxes=-1)), 'at least 0'),
        (
            lambda: MimicHead().bind(*[detector('retinanet')] * 2),
            'second stages .* RetinaNet with RetinaHead',
        ),
        (
            lambda: MimicHead().bind(detector('frcnn'), detector('frcnn', reg_class_agnostic=True)),
            "reg_class_agnostic: the student's head has False and the teacher's True",
        ),
        (lambda: MimicHead().bind(detector('frcnn'), other_coder()), 'equal box coders'),
    ],
)
def test_bad_input(build, message):
    with pytest.raises(ValueError, match=message):
        build()
