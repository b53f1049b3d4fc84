"""Which teacher assistants to take (Mirzadeh et al., AAAI 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations


def nearest_to_mean(teacher: float, student: float, candidates: Mapping[str, float]) -> str:
    """The one assistant whose score alone is nearest to the mean of teacher's and student's.

    Args:
        teacher, student (float): scores without distillation, in any unit.
        candidates (dict[str, float]): scores of networks of intermediate size, by name; of equally
            near ones the first is taken.

    Raises:
        ValueError: no candidate.
    """
    if not candidates:
        raise ValueError('nearest_to_mean: there is no candidate for an assistant.')
    middle = (teacher + student) / 2
    return min(candidates, key=lambda name: abs(candidates[name] - middle))


def paths(sizes: Sequence[str]) -> list[tuple[str, ...]]:
    """Every choice of assistants from ``sizes``, largest first, the shortest paths first.

    Of k sizes there are 2^k; each is the list of stages between teacher and student.
    """
    return [path for count in range(len(sizes) + 1) for path in combinations(sizes, count)]
