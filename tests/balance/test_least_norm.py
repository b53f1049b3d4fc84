"""The programme of AE-KD against an enumeration of all sets of bounds."""

import itertools

import numpy as np
import pytest

from mmkd.balance.least_norm import least_norm


def gram(*vectors):
    stacked = np.array(vectors, dtype=float)
    return stacked @ stacked.T


def enumerated(matrix, cap):
    """The smallest value over all choices of which weight is at 0, at the cap, or free."""
    count, best = len(matrix), (np.inf, None)
    for kinds in itertools.product((0, 1, 2), repeat=count):
        kinds = np.array(kinds)
        free = kinds == 2
        weights = np.where(kinds == 1, cap, 0.0)
        rest = 1 - weights.sum()
        if free.any():
            size = int(free.sum())
            system = np.ones((size + 1, size + 1))
            system[:size, :size], system[-1, -1] = matrix[np.ix_(free, free)], 0
            wanted = np.append(-matrix[free] @ weights, rest)
            weights[free] = np.linalg.lstsq(system, wanted, rcond=None)[0][:size]
        if (
            abs(weights.sum() - 1) < 1e-9
            and (weights > -1e-9).all()
            and (weights < cap + 1e-9).all()
        ):
            best = min(best, (weights @ matrix @ weights, tuple(weights)))
    return best


@pytest.mark.parametrize(
    ('vectors', 'cap', 'wanted'),
    [
        ([(1, 0), (0, 2)], 1.0, (0.8, 0.2)),
        ([(1, 0), (0, 2)], 0.6, (0.6, 0.4)),
        ([(1, 0), (0, 2)], 0.5, (0.5, 0.5)),
        ([(1, 0), (-1, 0)], 1.0, (0.5, 0.5)),
        ([(1, 0), (-3, 0)], 1.0, (0.75, 0.25)),
        ([(1, 0), (-3, 0)], 0.6, (0.6, 0.4)),
        ([(1, 0), (0, 1), (-1, 0)], 1.0, (0.5, 0, 0.5)),
        ([(1, 0), (0, 1), (-1, 0)], 0.6, (0.5, 0, 0.5)),
        ([(1, 0), (0, 1), (-1, 0)], 0.4, (0.4, 0.2, 0.4)),
        ([(1, 0), (0, 1), (-1, 0)], 1 / 3, (1 / 3, 1 / 3, 1 / 3)),
        ([(1, 0), (3, 0)], 1.0, (1, 0)),
        ([(1, 0), (3, 0)], 2.0, (1, 0)),
        ([(1, 0)], 1.0, (1,)),
    ],
)
def test_values_of_the_sheet(vectors, cap, wanted):
    np.testing.assert_allclose(least_norm(gram(*vectors), cap), wanted, atol=1e-6)


@pytest.mark.parametrize(
    ('vectors', 'wanted'),
    [
        ([(1, 2), (1, 2), (1, 2)], (1 / 3, 1 / 3, 1 / 3)),
        ([(1, 0), (1, 0), (0, 1)], (0.25, 0.25, 0.5)),
        ([(0, 0), (0, 0)], (0.5, 0.5)),
        ([(0, 0), (0, 0), (1, 0)], (0.5, 0.5, 0)),
    ],
)
def test_ties_go_to_equal_weights(vectors, wanted):
    np.testing.assert_allclose(least_norm(gram(*vectors), 1.0), wanted, atol=1e-6)


def test_the_closed_form_of_two():
    random = np.random.default_rng(0)
    for cap in (0.5, 0.6, 0.8, 1.0):
        for _ in range(10):
            a, b = random.normal(size=(2, 3))
            first = np.clip(b @ (b - a) / ((a - b) @ (a - b)), 1 - cap, cap)
            np.testing.assert_allclose(least_norm(gram(a, b), cap), (first, 1 - first), atol=1e-6)


def test_it_is_the_minimum_and_moves_with_a_permutation():
    random = np.random.default_rng(1)
    for _ in range(60):
        count, size = random.integers(2, 6), random.integers(1, 6)
        cap = random.uniform(1 / count, 1)
        matrix = gram(*random.normal(size=(count, size)))
        found = least_norm(matrix, cap)
        assert abs(found.sum() - 1) < 1e-12 and (found >= 0).all() and (found <= cap + 1e-9).all()
        least, _ = enumerated(matrix, cap)
        assert found @ matrix @ found <= least + 1e-6 * np.trace(matrix)
        order = random.permutation(count)
        moved = least_norm(matrix[np.ix_(order, order)], cap)
        np.testing.assert_allclose(moved, found[order], atol=1e-6)


def test_conditions_of_a_minimum_hold_for_eight():
    random = np.random.default_rng(2)
    for _ in range(40):
        matrix, cap = gram(*random.normal(size=(8, 12))), random.uniform(0.13, 0.5)
        weights = least_norm(matrix, cap)
        gradient, inner = matrix @ weights, (weights > 1e-9) & (weights < cap - 1e-9)
        assert inner.any()
        level, slack = gradient[inner].mean(), 1e-5 * np.trace(matrix)
        assert np.ptp(gradient[inner]) < slack
        assert (gradient[weights <= 1e-9] > level - slack).all()
        assert (gradient[weights >= cap - 1e-9] < level + slack).all()


def test_it_ends_for_vectors_of_very_different_length():
    found = least_norm(gram((1e-6, 0), (0, 1e6), (3, 4)), 1.0)
    assert np.isfinite(found).all() and abs(found.sum() - 1) < 1e-12
