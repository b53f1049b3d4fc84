"""Gradients in the pixels, of a network whose gradients are known."""

import torch
from pixel_toys import (
    LABELS,
    closed_form,
    linear_step,
)
from torch.nn import functional as F

from mmkd.rows.input_gradients import input_gradients
from mmkd.tap import Tap


def test_gradient_of_the_cross_entropy_in_closed_form():
    step = linear_step()
    pair = input_gradients(
        step, Tap.parse('head.fc'), lambda z: F.cross_entropy(z, LABELS, reduction='none')
    )
    wanted = [closed_form(side.model, step.inputs) for side in (step.student, step.teacher)]
    for found, known in zip(pair, wanted, strict=True):
        torch.testing.assert_close(found.flatten(1), known)
    assert pair[0].requires_grad and not pair[1].requires_grad
