"""Maps of several teachers, with the values of the sheet."""

import pytest
import torch

from mmkd.functional.fusion import confidence_weights, fused, standard, top_confidence

T1, T2 = (
    torch.tensor(x, dtype=torch.float64).view(1, 1, 2, 2) for x in ([1, 2, 3, 4], [4, 0, 0, 0])
)


def test_the_mean_of_standardised_maps():  # FU-1
    found = fused([T1, T2], torch.tensor([0.5, 0.5]).double())
    wanted = torch.tensor([0.1952051, -0.5122818, -0.0650684, 0.3821450]).double()
    torch.testing.assert_close(found.flatten(), wanted, atol=1e-6, rtol=0)
    assert float(found.square().mean()) == pytest.approx(0.1127016, abs=1e-6)


def test_weights_by_confidence():  # FU-2
    found = confidence_weights(torch.tensor([[0.8], [0.2]]))
    torch.testing.assert_close(found[:, 0], torch.tensor([0.7685248, 0.2314752]), atol=1e-6, rtol=0)
    scores = torch.cat((torch.full((1, 10), 0.8), torch.zeros(1, 90)), 1)
    assert float(top_confidence(scores)) == pytest.approx(0.8)
    assert float(top_confidence(torch.tensor([[0.4, 0.2]]))) == pytest.approx(0.3)


def test_one_teacher_is_its_standardised_map():
    assert torch.equal(fused([T2], torch.ones(1)), standard(T2))


def test_weights_of_each_image():
    maps = [torch.randn(2, 3, 4, 4) for _ in range(2)]
    weights = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    found = fused(maps, weights)
    assert torch.equal(found[0], standard(maps[0])[0])
    assert torch.equal(found[1], standard(maps[1])[1])
