"""Options for a cheaper teacher (fused BatchNorms, precision, memory format), with checks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from logging import WARNING
from math import nan
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor

from mmkd.families import two_stage
from mmkd.plan.probe import Found
from mmkd.tap import Side, flatten
from mmkd.teacher import Teacher

#: Largest change of a tapped tensor, relative to its largest number. A ResNet-101 with FPN shows
#: 4e-6 for what is exact but for the order of sums, 3e-3 for fp16 and 2.4e-2 for bf16.
EXACT = 1e-3
#: maps of smaller numbers than this are of an untrained network, and rounded to nothing by fp16
TINY = 1e-3
LIMITS = {torch.float16: 2e-2, torch.bfloat16: 1e-1}
#: Boxes in a probe image, one of each scale, for which a second stage is asked.
BOX_HEAD = 'its box head on given RoIs'
ROIS = ((10, 20, 26, 34), (30, 30, 90, 110), (60, 10, 230, 160), (0, 0, 255, 255))


#: What to do about an option that changes too much.
ADVICE = {
    'fuse_conv_bn=True': 'Set fuse_conv_bn=False, or tap behind the BatchNorm.',
    "memory_format='channels_last'": 'Leave memory_format out.',
    "dtype='bf16'": 'Leave dtype out.',
    "dtype='fp16'": "Numbers above 65504 do not fit fp16: set dtype='bf16' or leave it out.",
}


def apply_options(name: str, teacher: Teacher, show: Callable[[], Found]) -> None:
    """Apply the options of a teacher, and compare its outputs before and after.

    BatchNorms are folded in float32, so that what is rounded to low precision is the folded weight.

    Args:
        name (str): of the teacher, for messages.
        teacher (Teacher): it listens already.
        show (Callable): probes it.

    Raises:
        ValueError: an option changes what the student learns from by more than rounding does.
    """
    steps = list(_steps(teacher))
    before = _answers(teacher, show().evaluated) if steps else {}
    if not before and teacher.fuse_conv_bn and teacher.recorder.taps:
        raise ValueError(
            f"teacher '{name}': fuse_conv_bn=True folds BatchNorms by their position, and here it "
            'cannot be checked that this is right: the probe of the teacher failed. Set '
            'fuse_conv_bn=False.'
        )
    limit = EXACT
    for option, change, own_limit in steps:
        try:
            change()
        except RuntimeError as error:
            raise ValueError(
                f"teacher '{name}': {option} cannot be applied to {type(teacher.model).__name__} "
                f'({error}). {ADVICE[option]}'
            ) from None
        limit = max(limit, own_limit)
        if before:
            device = next(teacher.model.parameters()).device.type
            with teacher.precision(device) if limit > EXACT else contextlib.nullcontext():
                found = show()
            if _ran(name, option, before, found):
                _compare(name, option, before, _answers(teacher, found.evaluated), limit)


def _ran(name: str, option: str, before: dict[str, list[Tensor]], found: Found) -> bool:
    """Whether a probe came as far as before; another device may have operators that it lacked."""
    reached = found.evaluated.calls if found.evaluated else {}
    if all(place in reached for place in before if place != BOX_HEAD):
        return True
    if 'not implemented for' in found.reason:
        message = f"teacher '{name}': what {option} changes could not be checked on this machine"
        print_log(f'{message}: {found.reason}.', 'current', WARNING)
        return False
    raise ValueError(
        f"teacher '{name}': with {option} its forward pass stops: {found.reason}. {ADVICE[option]}"
    )


def _steps(teacher: Teacher) -> Iterator[tuple[str, Callable[[], Any], float]]:
    """Each option that is set: its text, its function, and the largest change allowed."""
    if teacher.fuse_conv_bn:
        yield 'fuse_conv_bn=True', teacher.fuse, EXACT
    if teacher.dtype in LIMITS:
        name = {torch.float16: 'fp16', torch.bfloat16: 'bf16'}[teacher.dtype]
        yield (
            f'dtype={name!r}',
            lambda: teacher.model.to(dtype=teacher.dtype),
            LIMITS[teacher.dtype],
        )
    if teacher.memory_format == torch.channels_last:
        yield (
            "memory_format='channels_last'",
            lambda: teacher.model.to(memory_format=teacher.memory_format),
            EXACT,
        )


def _answers(teacher: Teacher, side: Side | None) -> dict[str, list[Tensor]]:
    """All numbers at the taps, and those of a second stage if its features are tapped."""
    if side is None:
        return {}
    found = {place: _numbers(calls) for place, calls in side.calls.items()}
    feats = two_stage.features_tap(teacher.model)
    if getattr(teacher.model, 'roi_head', None) is not None and side.raw(feats):
        rois = torch.tensor([(0, *box) for box in ROIS]).to(side.inputs)
        # Where the model has no such box head, no method asks it either.
        with contextlib.suppress(Exception):
            answers = two_stage.roi_outputs(teacher.model, side[feats], rois)
            found[BOX_HEAD] = _numbers(list(answers))
    return found


def _numbers(value: Any) -> list[Tensor]:
    return [t.float() for t in flatten(value) if t.is_floating_point()]


def _compare(
    name: str,
    option: str,
    before: dict[str, list[Tensor]],
    after: dict[str, list[Tensor]],
    limit: float,
) -> None:
    for place, tensors in before.items():
        found = after.get(place)  # a second stage may fail behind what was tapped
        error = nan if found is None else max(map(_change, tensors, found), default=0.0)
        if not error <= limit:  # NaN is no small change
            raise ValueError(
                f"teacher '{name}': {option} changes what {place!r} shows by {error:.2g} of its "
                f'largest number, where rounding explains {limit:g}. {ADVICE[option]}'
            )


def _change(before: Tensor, after: Tensor) -> float:
    if not before.numel():
        return 0.0
    return float((after - before).abs().max() / before.abs().max().clamp(min=TINY))
