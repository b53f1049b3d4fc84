"""The networks in a teacher: their options, their shapes, and what the plan says of them."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from mmkd.functional.nested import flatten
from mmkd.plan.probe import Found, Request
from mmkd.plan.teacher_options import apply_options
from mmkd.tap import Tap
from mmkd.teacher import Teacher
from mmkd.teachers import Ensemble
from mmkd.teachers.means import check_shapes


def prepare_parts(who: str, teacher: Teacher, size: int) -> None:
    """Apply the options of each network in a teacher; members of a mean show equal shapes.

    Args:
        who (str): the teacher's name.
        size (int): side of the image of the probe.

    Raises:
        ValueError: an option that changes what is tapped; members of unequal shapes.
    """
    parts = teacher.parts()
    for name, part in parts.items():
        apply_options(f'{who}{name}', part, partial(_show, f'{who}{name}', _taps(part), size))
    if not isinstance(teacher, Ensemble) or not teacher.averages or len(parts) < 2:
        return
    shown: dict[str, dict[str, list[Tensor]]] = {}
    for name, part in parts.items():
        side = _show(f'{who}{name}', _taps(part), size, part.model).evaluated
        for tap, calls in side.calls.items() if side else ():
            shown.setdefault(tap, {})[name[1:]] = flatten(calls)
    for tap, members in shown.items():
        check_shapes(f"teacher '{who}'", tap, members)


def describe_teacher(name: str, teacher: Teacher) -> list[str]:
    """Lines of the plan: what it is, and how each of its networks runs."""
    parts, who = teacher.parts(), name if name == 'teacher' else f'teacher {name}'
    lines = [] if '' in parts else [f'{who}: {type(teacher).__name__}, {teacher.loaded}']
    for which, part in parts.items():
        kind = f'{type(part).__name__}, ' * (type(part) is not Teacher)
        lines.append(
            f'{who}{which}: {kind}{type(part.model).__name__}, {millions(part.model)}, '
            f'{part.loaded}'
        )
        looks = f'view {part.view}, ' if part.view else ''
        lines.append(f'  runs {part.route}; input {looks}{part.pixels}')
        lines += [f'  fast: {note}' for note in part.notes]
        lines += [f'  {note}' for note in (part.compile_note, part.stream_note) if note]
    return lines


def millions(model: nn.Module) -> str:
    return f'{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters'


def _taps(part: Teacher) -> list[Tap]:
    return list(part.recorder.taps.values()) if part.recorder else []


def _show(who: str, taps: list[Tap], size: int, model: nn.Module) -> Found:
    return Request(who, model, taps).run(size)
