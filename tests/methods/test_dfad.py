"""DFAD: numbers by hand. Turns and gradients: tests/rows/test_generator_objective.py."""

import pytest
import torch

from mmkd.methods import DFAD


def test_worked_numbers():
    """|1 - 0| + |2 - 4| + |3 - 3| + |0 - 1| over four logits."""
    student = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    teacher = torch.tensor([[0.0, 4.0], [3.0, 1.0]])
    method = DFAD(size=8)
    assert float(method.student_loss(student, teacher)) == 1.0
    method.asked_student = lambda images, trace: student
    method.teacher_taps = ('t',)
    method.asked_teacher = lambda images, trace: dict(t=[teacher])
    found = method.generator_losses(torch.zeros(2, 3, 8, 8), None)
    assert float(found['loss_generator']) == -1.0


def test_defaults():
    method = DFAD()
    assert (method.latent, method.size, method.optimizer) == (
        256,
        (32, 32),
        dict(type='Adam', lr=1e-3),
    )
    assert DFAD(optimizer=dict(type='SGD', lr=1)).optimizer == dict(type='SGD', lr=1)
    with pytest.raises(ValueError, match='DFAD: seed must be'):
        DFAD(seed=-1)
