"""Rounding of maps, with the values of the sheet."""

import pytest
import torch

from mmkd.functional.quantise import percentile, quantise, straight_through, zeros_in


def test_a_dictionary_without_and_with_an_end():  # QM-7
    x = torch.tensor([0.1, 0.24, 0.26, 0.9, 2, 7.4, 7.6, 9])
    found = quantise(x, 0.5)
    assert found.tolist() == [0, 0, 0.5, 1, 2, 7.5, 7.5, 9]
    assert zeros_in([found]) == 0.25
    assert quantise(x, 0.5, levels=16).tolist() == [0, 0, 0.5, 1, 2, 7.5, 7.5, 7.5]
    assert quantise(-x, 0.5, signed=True, levels=16).tolist()[-1] == -7.5


def test_gradients_pass_unchanged():  # QM-8
    x = torch.tensor([0.2, 0.6, 1.1], requires_grad=True)
    value = straight_through(x, quantise(x.detach(), 0.5))
    assert value.tolist() == [0, 0.5, 1]
    value.backward(torch.tensor([1.0, 2, 3]))
    assert x.grad.tolist() == [1, 2, 3]


def test_the_step_of_a_sixteenth_of_the_percentile():  # QM-9
    x = torch.arange(1.0, 1001)
    assert float(percentile(x)) == 999
    assert float(percentile(x)) / 16 == pytest.approx(62.4375)
    assert float(percentile(-x)) == 999
