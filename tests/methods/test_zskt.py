"""ZSKT: numbers by hand. Turns and gradients: tests/rows/test_generator_objective.py."""

import pytest
import torch

from mmkd.methods import ZSKT


def test_worked_numbers():
    """p_T = (.75, .25), p_S = (.5, .5): KL = .75 log 1.5 + .25 log .5 = .130812, over two
    classes .065406; the mean over images and classes is that of the released code."""
    teacher = torch.tensor([[0.75, 0.25], [0.5, 0.5]]).log()
    student = torch.zeros(2, 2)
    method = ZSKT(size=8)
    wanted = 0.130812 / 4
    assert float(method.student_loss(student, teacher)) == pytest.approx(wanted, abs=1e-6)
    method.asked_student = lambda images, trace: student
    method.teacher_taps = ('t',)
    method.asked_teacher = lambda images, trace: dict(t=[teacher])
    found = method.generator_losses(torch.zeros(2, 3, 8, 8), None)
    assert float(found['loss_generator']) == pytest.approx(-wanted, abs=1e-6)


def test_defaults():
    method = ZSKT()
    assert method.latent == 100 and method.optimizer == dict(type='Adam', lr=1e-3)
