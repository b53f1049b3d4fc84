"""Similarities between all pairs of cells of a map, compared without storing the matrices."""

from __future__ import annotations

from torch import Tensor


def row_gaps(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared length of each row of ``S' S - T' T``, (N, C_s, m) and (N, C_t, m) -> (N, m).

    The m x m products are never built, for ``sum_j (a_i . a_j) (b_i . b_j) = a_i' (sum_j a_j b_j')
    b_i``: memory grows with m, not with its square. In float64, because the terms cancel.
    """
    s, t = student.double(), teacher.double()
    return (_inner(s, s) + _inner(t, t) - 2 * _inner(s, t)).clamp(min=0)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """``sum_j (a_i . a_j) (b_i . b_j)`` of each place i, (N, m)."""
    return (((b @ a.mT) @ a) * b).sum(1)
