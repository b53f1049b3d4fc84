"""Distances in front of a ReLU: the numbers of ResDist; OFD's are with it."""

import pytest
import torch

from mmkd.functional.margin_relu import margin_distance, margin_of, partial_square


def test_numbers_of_the_sheet():
    student = torch.tensor([-1, -0.2, 0.3, 2]).view(1, 1, 2, 2)
    teacher = torch.tensor([-0.8, -0.9, -0.2, 1.5]).view(1, 1, 2, 2)
    cut = teacher.clamp(min=-0.5)
    found = partial_square(student, cut).flatten()
    torch.testing.assert_close(found, torch.tensor([0, 0.09, 0.25, 0.25]))
    assert float(margin_distance(student, teacher, torch.tensor([-0.5]))) == pytest.approx(0.59)
    pair = torch.cat((student, student)), torch.cat((teacher, teacher))
    assert float(margin_distance(*pair, torch.tensor([-0.5]))) == pytest.approx(0.59)


def test_margins_of_the_sheet():
    found = margin_of(torch.tensor([0, 0.2]), torch.tensor([1, 0.5]))
    wanted = torch.tensor([-0.797885, -0.334378], dtype=torch.float64)
    torch.testing.assert_close(found, wanted, atol=5e-7, rtol=0)
