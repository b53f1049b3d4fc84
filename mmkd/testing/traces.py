"""A step that never was, from tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmkd.levels import Level
from mmkd.objective import Objective
from mmkd.schedule import Progress
from mmkd.tap import Side, Tap, Trace


def make_trace(
    student: Mapping[str, Any],
    teacher: Mapping[str, Any] | None = None,
    samples: list | None = None,
    progress: float | Progress = 0.0,
    inputs: Tensor | None = None,
    stride: int = 8,
    student_model: nn.Module | None = None,
    teacher_model: nn.Module | None = None,
) -> Trace:
    """A trace made by hand: the values of the taps of both sides, given as tensors.

    Args:
        student, teacher (dict): tap -> one tensor, or a list of them.
        samples (list | None): data samples; one empty sample an image by default.
        progress (float): fraction of training done.
        inputs (Tensor | None): pixels (N, 3, H, W); by default ``stride`` times as high and wide
            as the largest map at the student's taps.
        stride (int): see ``inputs``.
        student_model, teacher_model (nn.Module | None): for objectives that use the networks.
    """
    maps = [x for value in student.values() for x in _as_list(value) if x.dim() == 4]
    if inputs is None:
        n = len(maps[0] if maps else _as_list(next(iter(student.values())))[0])
        h, w = (max((m.shape[d] for m in maps), default=8) * stride for d in (2, 3))
        inputs = torch.zeros(n, 3, h, w)
    if samples is None:
        samples = [BaseDataElement() for _ in inputs]
    if not isinstance(progress, Progress):
        progress = Progress(round(progress * 1000), 1000)
    sides = [
        Side(model or nn.Module(), inputs, {Tap.parse(k).source: _as_list(v) for k, v in x.items()})
        for model, x in ((student_model, student), (teacher_model, teacher or {}))
    ]
    teachers = {} if teacher is None else {'teacher': sides[1]}
    return Trace(inputs, samples, sides[0], teachers, progress)


def ready(objective: Objective, trace: Trace) -> Objective:
    """Set an objective up for the shapes in a trace, as the plan does at build."""
    teacher = levels_of(trace.teacher, objective.teacher_taps) if trace.teachers else None
    objective.setup(levels_of(trace.student, objective.student_taps), teacher)
    return objective


def levels_of(side: Side, taps: Iterable[Tap]) -> list[Level]:
    """Shape and stride of every tensor at the taps."""
    height = side.inputs.shape[2]
    return [
        Level(tuple(t.shape[1:]), round(height / t.shape[2]) if t.dim() == 4 else None, str(tap))
        for tap in taps
        for t in side[tap]
    ]


def _as_list(value: Any) -> list[Tensor]:
    return list(value) if isinstance(value, (list, tuple)) else [value]
