"""ATGradient: gradients in the pixels of linear networks."""

import pytest
import torch
from pixel_toys import (
    closed_form,
    linear_step,
)

from mmkd.methods.at_gradient import ATGradient, gradient_distance


def test_distance_of_gradients_in_closed_form():
    step = linear_step()
    wanted = [closed_form(side.model, step.inputs) for side in (step.student, step.teacher)]
    objective = ATGradient()
    objective.bind(step.student.model, step.teacher.model)
    loss = objective(step)['loss']
    assert float(loss) == pytest.approx(float((wanted[0] - wanted[1]).norm(dim=1).mean()) / 2)
    loss.backward()
    assert step.student.model.head.fc.weight.grad.any()
    assert step.teacher.model.head.fc.weight.grad is None


def test_gradient_at_equality_is_finite():
    gradient = torch.tensor([[1.0, 0.0]])
    same = gradient.clone().requires_grad_()
    gradient_distance(same, gradient).backward()
    assert same.grad.isfinite().all()
