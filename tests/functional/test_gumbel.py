"""Draws from a softmax: frequencies, and the relaxation of given noise."""

import pytest
import torch

from mmkd.functional.gumbel import concrete, gumbel_noise

LOGITS = torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64)


def test_frequencies_of_the_largest_are_the_softmax():
    many = LOGITS.expand(200_000, 3)
    noise = gumbel_noise(many, torch.Generator().manual_seed(0))
    found = (many + noise).argmax(1).bincount(minlength=3) / len(many)
    assert found.tolist() == pytest.approx([0.665, 0.244, 0.091], abs=4e-3)
    assert found.tolist() == pytest.approx(LOGITS.softmax(0).tolist(), abs=4e-3)


def test_noise_is_finite_and_repeatable():
    like = torch.zeros(1000, 100)
    first, second = (gumbel_noise(like, torch.Generator().manual_seed(3)) for _ in range(2))
    assert first.isfinite().all() and torch.equal(first, second)
    assert first.dtype == torch.float32 and not torch.equal(first[0], first[1])


@pytest.mark.parametrize(
    ('tau', 'wanted'),
    [
        (1.0, (0.52609, 0.430726, 0.043184)),
        (0.5, (0.596282, 0.3997, 0.004018)),
        (0.1, (0.880797, 0.119203, 0.0)),
    ],
)
def test_worked_numbers_of_the_relaxation(tau, wanted):
    noise = torch.tensor([0.2, 1.0, -0.3], dtype=torch.float64)
    found = concrete(LOGITS, noise, tau)
    assert found.tolist() == pytest.approx(wanted, abs=1e-6)
    assert float(found.sum()) == pytest.approx(1)
