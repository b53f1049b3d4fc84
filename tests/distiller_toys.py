"""A toy student, a toy teacher, and objectives that return what a test needs."""

import torch

from mmkd.distiller import Distiller
from mmkd.objective import Objective, PairObjective
from mmkd.teacher import Teacher
from mmkd.testing import (
    ToyNet,
    class_labels,
    pixels,
)


class Square(PairObjective):
    taps = 'neck'

    def compare(self, student, teacher):
        return (student - teacher).square().mean()


class Returns(Objective):
    """Returns what it was told to, whatever it sees."""

    taps = 'neck'

    def __init__(self, value, **kwargs):
        super().__init__(**kwargs)
        self.value = value

    def forward(self, trace):
        return self.value(trace) if callable(self.value) else self.value


def batch(n=2):
    return pixels(n, (64, 96)), class_labels(torch.arange(n) % 3)


def toy(objectives=None, teacher=None, student=None, **options):
    torch.manual_seed(0)
    return Distiller(
        student=student or ToyNet(),
        teacher=Teacher(ToyNet(6), checkpoint='random') if teacher is None else teacher,
        objectives=dict(square=Square()) if objectives is None else objectives,
        **{'preflight': False, **options},
    )
