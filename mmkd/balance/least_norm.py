"""The shortest combination of several vectors: the quadratic programme of AE-KD."""

from __future__ import annotations

import numpy as np

#: of the mean squared length: how far a tie is drawn towards equal weights
TIE = 1e-8


def least_norm(gram: np.ndarray, cap: float = 1.0) -> np.ndarray:
    """Weights a of ``min |sum_m a_m v_m|^2`` with ``sum a = 1`` and ``0 <= a_m <= cap``.

    An active-set method that starts from equal weights: it ends after finitely many steps, and of
    several solutions (parallel vectors) it gives the one nearest to equal weights.

    Args:
        gram (np.ndarray): (M, M), inner products of the vectors, float64.
        cap (float): bound of each weight, at least 1/M.

    Returns:
        np.ndarray: (M,), float64.
    """
    count = len(gram)
    weights = np.full(count, 1 / count)
    scale = np.trace(gram) / count
    if cap * count <= 1 or not scale > 0:
        return weights
    matrix = gram / scale + TIE * np.eye(count)
    free = np.ones(count, dtype=bool)
    for _ in range(100 * count):
        step = _minimum(matrix, weights, free) - weights
        room = _room(weights, step, free, cap)
        blocked = int(room.argmin())
        weights = np.clip(weights + min(room[blocked], 1.0) * step, 0.0, cap)
        if room[blocked] < 1:  # it has reached its bound
            weights[blocked] = 0.0 if step[blocked] < 0 else cap
            free[blocked] = False
            continue
        released = _worst(matrix @ weights, weights, free)
        if released is None:
            break
        free[released] = True
    return weights / weights.sum()


def _minimum(matrix: np.ndarray, weights: np.ndarray, free: np.ndarray) -> np.ndarray:
    """The minimum over the free weights, whose sum stays, while the others rest."""
    count = int(free.sum())
    system = np.ones((count + 1, count + 1))
    system[:count, :count] = matrix[np.ix_(free, free)]
    system[-1, -1] = 0.0
    wanted = np.append(-matrix[np.ix_(free, ~free)] @ weights[~free], weights[free].sum())
    result = weights.copy()
    result[free] = np.linalg.solve(system, wanted)[:count]
    return result


def _room(weights: np.ndarray, step: np.ndarray, free: np.ndarray, cap: float) -> np.ndarray:
    """How many times the step fits, by weight."""
    room = np.full(len(weights), np.inf)
    down, up = free & (step < -1e-15), free & (step > 1e-15)
    room[down] = weights[down] / -step[down]
    room[up] = (cap - weights[up]) / step[up]
    return room


def _worst(gradient: np.ndarray, weights: np.ndarray, free: np.ndarray) -> int | None:
    """The bound weight that would shorten the sum most if it moved, None at the solution."""
    level = gradient[free].mean()
    # At 0 a gradient below that of the free ones asks to grow, at the cap one above it to shrink.
    pull = np.where(weights > 0, gradient - level, level - gradient)
    pull[free] = 0.0
    index = int(pull.argmax())
    return index if pull[index] > 1e-12 else None
