"""Uncertainty of images: the values of the sheet, boxes that do not count, and no box."""

import math

import pytest
import torch

from mmkd.makers.uncertainty import entropy, least_confident


@pytest.mark.parametrize(
    ('scores', 'mean', 'rest'),
    [((0.95, 0.9), 0.261799, 0.05), ((0.5, 0.45, 0.4), 0.684766, 0.5), ((), math.log(2), 1.0)],
)
def test_values_of_the_sheet(scores, mean, rest):
    assert entropy(torch.tensor(scores)) == pytest.approx(mean, abs=1e-6)
    assert least_confident(torch.tensor(scores)) == pytest.approx(rest, abs=1e-6)


def test_what_counts():
    sure = torch.tensor([1.0, 0.9])
    assert entropy(sure) == pytest.approx(entropy(torch.tensor([0.9])) / 2), '0 ln 0 is 0'
    assert entropy(torch.cat((torch.full((9,), 0.049), sure))) == pytest.approx(entropy(sure))
    assert entropy(torch.tensor([0.01])) == math.log(2), 'as without a box'
    many = torch.cat((torch.full((30,), 0.06), torch.full((20,), 0.9)))
    assert entropy(many) == pytest.approx(entropy(torch.tensor([0.9]))), 'the 20 highest'
