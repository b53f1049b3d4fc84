"""ATGradient: gradients in the pixels of linear networks."""

import pytest
import torch
from pixel_toys import (
    closed_form,
    linear_step,
)

from mmkd.distiller import Distiller
from mmkd.methods.at_gradient import ATGradient, gradient_distance
from mmkd.testing import classification_batch, tiny_classifier


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


def test_against_flipped_images():
    """J(x) against flip(J(flip(x))), in closed form for a linear network."""
    step = linear_step()
    model = step.student.model
    flipped = step.inputs.detach().flip(3)
    own = closed_form(model, step.inputs)
    other = closed_form(model, flipped).view(2, 3, 2, 2).flip(3).flatten(1)
    objective = ATGradient(against='flip')
    objective.bind(model, None)
    assert not objective.needs_teacher and not objective.teacher_taps
    loss = objective(step)['loss']
    assert float(loss) == pytest.approx(float((own - other).norm(dim=1).mean()) / 2)
    loss.backward()
    assert model.head.fc.weight.grad.any()


def test_a_symmetric_network_has_no_loss():
    step = linear_step()
    model = step.student.model
    with torch.no_grad():
        weight = model.head.fc.weight.view(3, 3, 2, 2)
        weight.copy_(weight + weight.flip(3))
    found = [model(step.inputs)]
    step.student.calls['head.fc'] = found
    objective = ATGradient(against='flip')
    objective.bind(model, None)
    assert float(objective(step)['loss'].detach()) < 1e-6


def test_trains_without_a_teacher():
    distiller = Distiller(tiny_classifier(4), dict(it=dict(type='mmkd.ATGradient', against='flip')))
    inputs, samples = classification_batch(4)
    before = {k: v.clone() for k, v in distiller.student.named_buffers()}
    losses = distiller.train().loss(inputs, samples)
    losses['kd.it.loss'].backward()
    assert losses['kd.it.loss'] > 0
    weight = distiller.student.backbone.conv1.weight
    assert weight.grad.isfinite().all() and weight.grad.any()
    counter = 'backbone.bn1.num_batches_tracked'
    assert distiller.student.get_buffer(counter) == before[counter] + 1  # once, as without it


def test_options():
    with pytest.raises(ValueError, match='against must be one of'):
        ATGradient(against='mirror')
