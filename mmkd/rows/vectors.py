"""Embeddings of a batch by student and teacher, one vector per image."""

from __future__ import annotations

from torch import Tensor

from mmkd.adapters.convolution import LinearAdapter
from mmkd.functional.gather import all_gather_rows
from mmkd.functional.relations import at_least_float32
from mmkd.levels import Level
from mmkd.objective import Objective
from mmkd.tap import Side, Tap, Trace


def check_partners(
    owner: str, student: list[Level] | None, teacher: list[Level] | None, least: int = 1
) -> None:
    """Both sides must show equally many tensors, which are partners by position.

    Raises:
        ValueError: unequally many, or fewer than ``least``.
    """
    if student is None or teacher is None:
        return
    if not least <= len(student) == len(teacher):
        raise ValueError(
            f'{owner} pairs layers by position and needs at least {least}, but the student shows '
            f'{len(student)} and the teacher {len(teacher)}. Name as many taps of one as of the '
            'other (student=, teacher=).'
        )


def linear_layers(
    objective: Objective, student: list[Level] | None, teacher: list[Level] | None, dim: int
) -> tuple[LinearAdapter, LinearAdapter]:
    """(B, D_s) -> (B, dim) and (B, D_t) -> (B, dim), for one layer of each side.

    Raises:
        ValueError: not one layer of each side, or one that could not be probed.
    """
    if not student or not teacher or len(student) != 1 or len(teacher) != 1:
        found = [
            len(levels) if levels else 'none that could be probed' for levels in (student, teacher)
        ]
        raise ValueError(
            f'{type(objective).__name__} embeds one layer of each network, but found '
            f'{found[0]} of the student and {found[1]} of the teacher. Name one tap of each.'
        )
    first, second = (LinearAdapter(level.channels, dim) for level in (student[0], teacher[0]))
    return first, second


def row_pairs(
    trace: Trace, objective: Objective, pooled: bool = True, gather: bool = True
) -> list[tuple[Tensor, Tensor]]:
    """(student, teacher) of each layer, (B, D_s) and (B, D_t).

    Args:
        pooled (bool): maps (B, C, H, W) are averaged over places, else flattened.
        gather (bool): the rows of all ranks, see :func:`all_gather_rows`.
    """
    student = side_rows(trace.student, objective.student_taps, pooled, gather)
    teacher = side_rows(trace.teacher, objective.teacher_taps, pooled, gather)
    return [(s, t.detach()) for s, t in zip(student, teacher, strict=True)]


def side_rows(side: Side, taps: tuple[Tap, ...], pooled: bool, gather: bool) -> list[Tensor]:
    """Rows of every tensor at the taps of one network."""
    rows = [vectors(x, pooled) for tap in taps for x in side[tap]]
    return [all_gather_rows(x) for x in rows] if gather else rows


def vectors(x: Tensor, pooled: bool = True) -> Tensor:
    """(B, C, H, W) -> (B, C) or (B, C H W); tensors without places are flattened."""
    x = at_least_float32(x)
    return x.mean((2, 3)) if pooled and x.dim() == 4 else x.flatten(1)
