"""Shapes at the taps, and which student map belongs to which teacher map."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mmkd.options import check_number

if TYPE_CHECKING:
    from mmkd.tap import Tap


@dataclass(frozen=True)
class Level:
    """One tapped tensor in the probe.

    Attributes:
        shape (tuple[int, ...]): without the batch dimension, (C, H, W) for a map.
        stride (int | None): input pixels per cell, None for anything but a map.
        tap (str): its address.
        rows (int): entries of the batch dimension for each image of the batch, 1 for a map.
    """

    shape: tuple[int, ...]
    stride: int | None
    tap: str = ''
    rows: float = 1

    @classmethod
    def of(cls, tensor: Tensor, inputs: Tensor, tap: str | Tap) -> Level:
        """The kind of a tensor (N, C, H, W), (N, L, C), … for a batch of pixels (N, C, H, W)."""
        shape = tuple(tensor.shape[1:])
        rows = len(tensor) / len(inputs) if tensor.dim() else 1
        is_map = tensor.dim() == 4 and rows == 1 and shape[1]
        return cls(shape, round(inputs.shape[2] / shape[1]) if is_map else None, str(tap), rows)

    def like(self, other: Level, height: int) -> bool:
        """Whether this, as probed, may be ``other``, as a step on ``height`` pixels delivers it.

        Strides may differ by what rounding does to a map, or where a map's size is fixed.
        """
        if len(self.shape) != len(other.shape):
            return False
        if len(self.shape) in (1, 3) and self.channels != other.channels:
            return False
        if self.stride is None or other.stride is None or self.shape == other.shape:
            return self.stride is None or other.stride is not None
        wanted = height / self.stride
        return abs(wanted - other.shape[1]) <= max(1, wanted / 8)

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
    options: Collection[str] = ('level_map', 'resize'),
    scale: Fraction = Fraction(1),
) -> list[tuple[int, int]]:
    """Pairs (i, j) of list positions: by stride for maps, by position for anything else.

    Where the student sees images of another size, cells that cover the same part of the picture
    belong together: at half the size a student's P2 to P6 and a teacher's P3 to P7.

    Args:
        student, teacher (list[Level]): the levels at the taps.
        level_map (str | list[tuple[int, int]] | None): ``'common'`` drops levels without a
            partner; explicit pairs override.
        any_stride (bool): pair equally many maps by position, regardless of strides.
        owner (str): name for error messages.
        options (Collection[str]): options of the owner, for advice.
        scale (Fraction): side of the student's images over that of the teacher's.

    Raises:
        ValueError: levels without a partner; the message lists both sides' strides and what the
            config may say instead.
    """
    if scale != 1:
        return _over_scales(student, teacher, level_map, any_stride, owner, options, scale)
    if level_map is not None and level_map != 'common':
        return _explicit(student, teacher, level_map, any_stride, owner)
    strides = [level.stride for level in student], [level.stride for level in teacher]
    by_position = None in strides[0] or None in strides[1] or strides[0] == strides[1]
    if by_position or (any_stride and len(student) == len(teacher)):
        if len(student) != len(teacher):
            raise ValueError(_mismatch(student, teacher, owner, options))
        return [(i, i) for i in range(len(student))]
    pairs = _by_stride(*strides)
    complete = len(pairs) == len(student) == len(teacher)
    if not pairs or (not complete and level_map != 'common'):
        raise ValueError(_mismatch(student, teacher, owner, options))
    return pairs


def seen_by_teacher(levels: list[Level], scale: Fraction) -> list[Level]:
    """The student's levels with strides in pixels of its teacher's images, fractions where those
    are no whole numbers."""
    strides = [None if level.stride is None else level.stride / scale for level in levels]
    whole = [int(x) if x is not None and x.denominator == 1 else x for x in strides]
    return [replace(level, stride=x) for level, x in zip(levels, whole, strict=True)]  # type: ignore[arg-type]


def _over_scales(
    student: list[Level],
    teacher: list[Level],
    level_map: Any,
    any_stride: bool,
    owner: str,
    options: Collection[str],
    scale: Fraction,
) -> list[tuple[int, int]]:
    """:func:`pair_levels` in the teacher's pixels; messages say so."""
    same = [level.stride for level in student] == [level.stride for level in teacher]
    if any_stride and same and level_map is None:
        return [(i, i) for i in range(len(student))]
    try:
        seen = seen_by_teacher(student, scale)
        return pair_levels(seen, teacher, level_map, any_stride, owner, options)
    except ValueError as error:
        raise ValueError(
            f"{error} The student sees images of {scale} of the side of its teacher's, and its "
            "strides are counted in the teacher's pixels."
        ) from None


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


def _mismatch(
    student: list[Level], teacher: list[Level], owner: str, options: Collection[str]
) -> str:
    def strides(levels: list[Level]) -> str:
        return ', '.join(str(level.stride or 'none') for level in levels)

    if len(student) == len(teacher) == 1:
        s, t = student[0], teacher[0]
        resize = ", or set resize='student' or resize='teacher'" if 'resize' in options else ''
        return (
            f"{owner}: the student's '{s.tap}' has stride {s.stride} and the teacher's '{t.tap}' "
            f'{t.stride}; tap maps of equal stride{resize}.'
        )
    ways = _ways(student, teacher, options) or ['tap levels of equal stride']
    return (
        f'{owner}: pyramid levels do not pair up. Student strides: {strides(student)}; teacher '
        f'strides: {strides(teacher)}. To compare some of them, {", or ".join(ways)}.'
    )


def _ways(student: list[Level], teacher: list[Level], options: Collection[str]) -> list[str]:
    """Options that pair at least some of the levels."""
    strides = [level.stride for level in student], [level.stride for level in teacher]
    if None in strides[0] or None in strides[1]:
        return []
    pairs, ways = _by_stride(*strides), []
    if pairs:
        common = ', '.join(str(strides[0][i]) for i, _ in pairs)
        if 'level_map' in options:
            ways.append(f"set level_map='common' (strides {common})")
        taps = [
            tap_of(levels, [p[k] for p in pairs]) for k, levels in enumerate((student, teacher))
        ]
        if all(taps):
            ways.append(f"tap student='{taps[0]}', teacher='{taps[1]}'")
        return ways
    if 'resize' not in options:
        return []
    if len(student) == len(teacher):
        return ["set resize='student' or resize='teacher', which compares them in their order"]
    count = min(len(student), len(teacher))
    last = [(len(student) - k, len(teacher) - k) for k in range(count, 0, -1)]
    ways = [f"set level_map={last}, resize='student'"] if 'level_map' in options else []
    taps = _slices(student, teacher, last)
    if all(taps):
        ways.append(f"tap student='{taps[0]}', teacher='{taps[1]}', resize='student'")
    return ways


def _slices(student: list[Level], teacher: list[Level], pairs: list) -> list[str]:
    return [tap_of(levels, [p[k] for p in pairs]) for k, levels in enumerate((student, teacher))]


def tap_of(levels: list[Level], positions: list[int]) -> str:
    """Tap of neighbouring levels of a single tap without an index; empty where there is none."""
    first, last = positions[0], positions[-1]
    tap = levels[0].tap
    together = positions == list(range(first, last + 1)) and all(x.tap == tap for x in levels)
    if not together or not tap or '[' in tap:
        return ''
    return f'{tap}[{first}]' if first == last else f'{tap}[{first}:{last + 1}]'
