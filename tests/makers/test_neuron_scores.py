"""Neurons by their scores: balanced accuracy, cost, likeness, and which are chosen."""

import itertools

import pytest
import torch

from mmkd.makers.neuron_scores import (
    attribute_cost,
    balanced_accuracy,
    cheapest,
    energy,
    identity_cost,
    likeness,
    mean_field,
)

COST = torch.tensor([0.2, 0.3, 0.25, 0.9], dtype=torch.float64)
SCORES = torch.tensor([[0.9, 0.5], [0.9, 0.52], [0.5, 0.9], [0.6, 0.6]], dtype=torch.float64)
ALIKE = likeness(SCORES)


def test_values_of_the_sheet():
    """Neurons 1 and 3 of the sheet, which counts from 1, are 0 and 2."""
    assert energy([], COST, ALIKE, 1.0) == 0, 'as printed, nothing is best'
    assert energy([0, 2], COST, ALIKE, 1.0) == pytest.approx(2.154, abs=5e-4)
    assert energy([0, 1], COST, ALIKE, 1.0) == pytest.approx(2.500, abs=5e-4)
    pairs = itertools.combinations(range(4), 2)
    assert min(pairs, key=lambda p: energy([*p], COST, ALIKE, 1.0)) == (0, 2)
    assert cheapest(COST, ALIKE, 1.0, 2) == [0, 2]
    assert cheapest(COST, ALIKE, 1.0, 1) == [0] and energy([0], COST, ALIKE, 1.0) == 0.2
    assert cheapest(COST, ALIKE, 0.0, 2) == [0, 2]
    assert energy([0, 2], COST, ALIKE, 0.0) == pytest.approx(0.45)
    marginals = mean_field(COST, ALIKE, 1.0, 2.3, 0.1)
    assert [round(float(q), 3) for q in marginals] == [0.988, 0, 0.975, 0]


def test_without_likeness_the_cheapest():
    cost = torch.rand(20, dtype=torch.float64)
    assert cheapest(cost, torch.rand(20, 20).double(), 0.0, 7) == cost.argsort()[:7].tolist()


def test_marginals_are_a_fixed_point():
    cost, alike = torch.rand(8).double(), likeness(torch.rand(8, 3).double())
    q = mean_field(cost, alike, 0.5, 2.0, 0.3)
    wanted = torch.sigmoid(-(cost - 2.0 + 2 * 0.5 * alike @ q) / 0.3)
    torch.testing.assert_close(q, wanted, atol=1e-7, rtol=0)


def test_the_best_threshold_slowly():
    torch.manual_seed(0)
    values, has = torch.randint(0, 5, (30, 4)).float(), torch.rand(30, 3) > 0.6
    found = balanced_accuracy(values, has)
    for i, j in itertools.product(range(4), range(3)):
        scores = []
        for threshold in (-1.0, *values[:, i].tolist()):
            said = values[:, i] > threshold
            rate = said[has[:, j]].double().mean() + (~said)[~has[:, j]].double().mean()
            scores += [float(rate) / 2, 1 - float(rate) / 2]
        assert float(found[i, j]) == pytest.approx(max(scores))
    perfect = balanced_accuracy(
        torch.tensor([[0.0, 3.0], [1.0, 2.0]]), torch.tensor([[0], [1]]) > 0
    )
    assert perfect.tolist() == [[1], [1]], 'on either side'


def test_cost_of_attributes():
    """(max - mean) of nuisance over that of identity."""
    scores = torch.tensor(
        [[0.9, 0.5, 0.6, 0.5], [0.9, 0.5, 0.9, 0.5], [0.6, 0.6, 0.9, 0.5]]
    ).double()
    found = attribute_cost(scores, [0, 1], [2, 3])
    torch.testing.assert_close(found[:2], torch.tensor([0.25, 1.0]).double())
    assert found[2] == torch.inf, 'it tells nothing of identity'


def test_cost_of_identities():
    values = torch.tensor([[0.0, 0.0, 1.0], [2.0, 2.0, 0.0], [10.0, 0.0, 1.0], [12.0, 2.0, 2.0]])
    found = identity_cost(values, torch.tensor([4, 4, 7, 7]))
    assert found.tolist() == [pytest.approx(1 / 25), torch.inf, pytest.approx(0.25 / 0.25)]
