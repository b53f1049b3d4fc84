"""Every loss on gradients in the pixels: a real step, and what is refused."""

import pytest
import torch
from cases import method

from mmkd.distiller import Distiller
from mmkd.methods import names
from mmkd.teacher import Teacher, build_model
from mmkd.testing import classification_batch, tiny_classifier, tiny_pspnet

PIXELS = [name for name in names() if method(name).needs_input_gradient]


def test_they_are_known():
    assert PIXELS == ['ATGradient', 'Jacobian']


@pytest.mark.parametrize('name', PIXELS)
def test_a_real_step_trains_the_student_through_the_pixels(name):
    torch.manual_seed(0)
    student, teacher = (build_model(tiny_classifier(width)) for width in (4, 8))
    distiller = Distiller(
        student, dict(it=method(name)()), Teacher(teacher, 'random'), preflight=False
    )
    inputs, samples = classification_batch()
    distiller.loss(inputs, samples)['kd.it.loss'].backward()
    assert student.backbone.conv1.weight.grad.any()
    assert inputs.grad is None and not inputs.requires_grad, "the caller's batch is left alone"


@pytest.mark.parametrize('name', PIXELS)
def test_what_is_refused(name):
    with pytest.raises(ValueError, match='for classifiers of images'):
        method(name)().bind(*(build_model(tiny_pspnet(8)) for _ in range(2)))


@pytest.mark.parametrize('name', PIXELS)
def test_the_first_steps_find_it_alive(name):
    """Of a network of ReLUs the Jacobian depends on the weights and not on the logits."""
    torch.manual_seed(0)
    teacher = build_model(tiny_classifier(8))
    distiller = Distiller(
        build_model(tiny_classifier(4)), dict(it=method(name)()), Teacher(teacher, 'random')
    )
    distiller.train()
    for _ in range(distiller.guard.steps):
        distiller.loss(*classification_batch())
    assert distiller.guard.alive == {'kd.it.loss'}
