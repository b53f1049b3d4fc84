"""Maps of student and teacher brought to one size."""

from __future__ import annotations

from typing import TypeAlias

from torch import Tensor

from mmkd.functional.mask_scores import MaskScores
from mmkd.functional.padding import crop_padding
from mmkd.functional.resize import resize as resized
from mmkd.scales import divisor_for, full_size
from mmkd.tap import Trace

#: options ``resize`` of objectives that compare maps, see :func:`equal_size`
RESIZE = (None, 'student', 'teacher', 'label')
#: (N, C, h, w), or class scores of masks, whose size is yet to be chosen
Map: TypeAlias = Tensor | MaskScores


def equal_size(
    owner: str,
    student: Map,
    teacher: Map,
    trace: Trace,
    resize: str | None = None,
    align_corners: bool = False,
) -> tuple[Tensor, Tensor]:
    """Maps (N, C, h, w) of both sides brought to one size; anything else as it is.

    What covers padding of the teacher's alone is cut off. Maps that differ by one cell become as
    large as the teacher's. Of class scores made of masks, the masks are resized.

    Args:
        owner (str): name of the objective, for messages.
        resize (str | None): ``'student'``, ``'teacher'`` or ``'label'`` (the input) names whose
            size both take.

    Raises:
        ValueError: maps that differ by more, without ``resize``.
    """
    if len(student.shape) != 4 or len(teacher.shape) != 4:
        return whole(student), whole(teacher)
    if teacher.shape[0] == len(trace.inputs):
        teacher = _cropped(teacher, trace)
    if resize is None and _gap(student, teacher) > 1:
        raise ValueError(
            f'{owner}: maps differ in size, student {tuple(student.shape)} and '
            f"teacher {tuple(teacher.shape)}. Set resize='student' or resize='teacher' if "
            'comparing them after bilinear resizing is meant.'
        )
    if trace.scale != 1 and student.shape[2:] != teacher.shape[2:]:
        _check_rest(owner, student, teacher, trace)
    sizes = {'student': student.shape[2:], 'label': trace.inputs.shape[2:]}
    size = sizes.get(resize or '', teacher.shape[2:])
    return at_size(student, size, align_corners), at_size(teacher, size, align_corners)


def _check_rest(owner: str, student: Map, teacher: Map, trace: Trace) -> None:
    """Maps over scales must cover the whole of both inputs: a cell of one is so many of the other.

    Raises:
        ValueError: the last cells of a map reach beyond its input.
    """
    sides = (student.shape[2:], trace.inputs.shape[2:]), (teacher.shape[2:], full_size(trace))
    if all(full % cells == 0 for side in sides for cells, full in zip(*side, strict=True)):
        return
    strides = [round(full[0] / cells[0]) for cells, full in sides]
    raise ValueError(
        f'{owner}: at scale {trace.scale} the maps of student {tuple(sides[0][0])} and teacher '
        f'{tuple(sides[1][0])} do not cover inputs of {tuple(sides[0][1])} and {sides[1][1]} '
        'pixels without a rest, so their cells do not lie over one another. Pad full batches to '
        f'multiples of {divisor_for(strides[0], strides[1], trace.scale)} pixels: pad_size_divisor '
        'of the data_preprocessor.'
    )


def whole(x: Map) -> Tensor:
    """A map at its own size."""
    return x.at() if isinstance(x, MaskScores) else x


def at_size(x: Map, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """A map, resized; of class scores of masks, the masks are resized."""
    if isinstance(x, MaskScores):
        return x.at(size)
    return x if x.shape[2:] == size else resized(x, size, align_corners)


def _cropped(teacher: Map, trace: Trace) -> Map:
    seen = trace.teacher.inputs, full_size(trace)
    return (
        teacher.cropped(*seen) if isinstance(teacher, MaskScores) else crop_padding(teacher, *seen)
    )


def _gap(student: Map, teacher: Map) -> int:
    return max(abs(a - b) for a, b in zip(student.shape[2:], teacher.shape[2:], strict=True))
