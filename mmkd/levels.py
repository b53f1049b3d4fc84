"""Shapes at the taps, and which student map belongs to which teacher map."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from mmkd.functional import check_number


@dataclass(frozen=True)
class Level:
    """One tapped tensor as seen by the probe.

    Attributes:
        shape (tuple[int, ...]): without the batch dimension, (C, H, W) for a map.
        stride (int | None): input pixels a cell, None for anything but a map.
        tap (str): where it was seen.
    """

    shape: tuple[int, ...]
    stride: int | None
    tap: str = ''

    @property
    def channels(self) -> int:
        """Width: the first entry of a map, the last of a token or vector."""
        return self.shape[0] if len(self.shape) == 3 else self.shape[-1]

    def __str__(self) -> str:
        size = 'x'.join(map(str, self.shape))
        return f'{size} (stride {self.stride})' if self.stride else size


def pair_levels(
    student: list[Level],
    teacher: list[Level],
    level_map: Any = None,
    any_stride: bool = False,
    owner: str = 'the objective',
) -> list[tuple[int, int]]:
    """Pairs (i, j) of list positions: by stride for maps, by position for anything else.

    Args:
        student, teacher (list[Level]): what the taps gave.
        level_map (str | list[tuple[int, int]] | None): ``'common'`` drops levels without a
            partner; explicit pairs override.
        any_stride (bool): pair equally many maps by position whatever their strides.
        owner (str): name for error messages.

    Raises:
        ValueError: levels without a partner; the message lists both sides' strides.
    """
    if level_map is not None and level_map != 'common':
        return _explicit(student, teacher, level_map, any_stride, owner)
    strides = [level.stride for level in student], [level.stride for level in teacher]
    by_position = None in strides[0] or None in strides[1] or strides[0] == strides[1]
    if by_position or (any_stride and len(student) == len(teacher)):
        if len(student) != len(teacher):
            raise ValueError(_mismatch(student, teacher, owner))
        return [(i, i) for i in range(len(student))]
    pairs = _by_stride(*strides)
    complete = len(pairs) == len(student) == len(teacher)
    if not pairs or (not complete and level_map != 'common'):
        raise ValueError(_mismatch(student, teacher, owner))
    return pairs


def _by_stride(student: list, teacher: list) -> list[tuple[int, int]]:
    """Equal strides together; several maps of one stride in their order, if equally many."""
    groups: dict[int, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for side, strides in enumerate((student, teacher)):
        for position, stride in enumerate(strides):
            groups[stride][side].append(position)
    pairs = [
        pair for s, t in groups.values() if len(s) == len(t) for pair in zip(s, t, strict=True)
    ]
    return sorted(pairs)


def _position(value: Any) -> int:
    return check_number('level_map', 'a position', value, whole=True)


def _explicit(
    student: list[Level], teacher: list[Level], level_map: Any, any_stride: bool, owner: str
) -> list[tuple[int, int]]:
    try:
        pairs = [(_position(i), _position(j)) for i, j in level_map]
    except (TypeError, ValueError):
        raise ValueError(
            f"{owner}: level_map must be None, 'common' or pairs such as [(0, 1), (1, 2)], "
            f'found {level_map!r}.'
        ) from None
    if not pairs:
        raise ValueError(f'{owner}: level_map={level_map!r} pairs nothing.')
    for i, j in pairs:
        if not (0 <= i < len(student) and 0 <= j < len(teacher)):
            raise ValueError(
                f'{owner}: level_map pair ({i}, {j}) does not exist: the student has '
                f'{len(student)} levels, the teacher {len(teacher)}.'
            )
        strides = student[i].stride, teacher[j].stride
        if not any_stride and None not in strides and strides[0] != strides[1]:
            raise ValueError(
                f'{owner}: level_map pair ({i}, {j}) has strides {strides[0]} and {strides[1]}; '
                "set resize='student' or resize='teacher' if that is meant."
            )
    return pairs


def _mismatch(student: list[Level], teacher: list[Level], owner: str) -> str:
    def strides(levels: list[Level]) -> str:
        return ', '.join(str(level.stride or 'none') for level in levels)

    if len(student) == len(teacher) == 1:
        s, t = student[0], teacher[0]
        return (
            f"{owner}: the student's '{s.tap}' has stride {s.stride} and the teacher's '{t.tap}' "
            f"{t.stride}; tap maps of equal stride, or set resize='student' or resize='teacher'."
        )
    return (
        f'{owner}: pyramid levels do not pair up. Student strides: {strides(student)}; teacher '
        f'strides: {strides(teacher)}. Choose levels of equal stride with taps such as '
        "student='neck[1:5]', teacher='neck[0:4]', or set level_map='common' to use only those "
        'that both have, or resize= to compare maps of unequal stride.'
    )
