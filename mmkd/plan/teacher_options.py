"""Options for a cheaper teacher (fused BatchNorms, precision, memory format), with checks."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from logging import WARNING
from math import nan
from typing import Any, NamedTuple

import torch
from mmengine.device import get_device
from mmengine.logging import print_log
from torch import Tensor, nn

from mmkd.compiled import check_compiler, reason
from mmkd.families import two_stage
from mmkd.functional.nested import flatten
from mmkd.functional.rounding import EXACT, LIMITS, largest_change
from mmkd.plan.probe import Found, dummy_samples
from mmkd.tap import Side
from mmkd.teacher import Teacher, fuse

#: Boxes in a probe image, one of each scale, for which a second stage is asked.
BOX_HEAD = 'its box head on given RoIs'
ROIS = ((10, 20, 26, 34), (30, 30, 90, 110), (60, 10, 230, 160), (0, 0, 255, 255))


#: What to do about an option that changes too much.
ADVICE = {
    'fuse_conv_bn=True': 'Set fuse_conv_bn=False, or tap behind the BatchNorm.',
    "memory_format='channels_last'": 'Leave memory_format out.',
    "dtype='bf16'": 'Leave dtype out.',
    "dtype='fp16'": 'Leave dtype out.',
}
#: … and where a number became infinite or NaN, or stayed finite, in fp16
OVERFLOW = "Numbers above 65504 do not fit fp16: set dtype='bf16' or leave it out."
AMPLIFIED = (
    'All numbers fit fp16, but a step of the network makes more of rounding than sums do, such as '
    'a threshold of attention masks (Mask2Former) or a choice of queries: leave dtype out.'
)


class Step(NamedTuple):
    """An option of a teacher: as it is written, its function, the largest change allowed."""

    text: str
    apply: Callable[[nn.Module], Any]
    limit: float = EXACT
    dtype: torch.dtype | None = None


def apply_options(name: str, teacher: Teacher, show: Callable[[nn.Module], Found]) -> None:
    """Apply the options of a teacher, and compare its outputs before and after.

    BatchNorms are folded in float32, so that what is rounded to low precision is the folded weight.
    Options of ``fast=True`` that change too much are left out, see :attr:`Teacher.notes`.

    Args:
        name (str): of the teacher, for messages.
        teacher (Teacher): with its taps set.
        show (Callable): probes a network at the teacher's taps.

    Raises:
        ValueError: a requested option changes the teacher's outputs by more than rounding does.
    """
    steps = list(_steps(teacher))
    before = _answers(teacher.model, show(teacher.model).evaluated) if steps else {}
    if not before and teacher.fuse_conv_bn and teacher.recorder.taps:
        raise ValueError(
            f"teacher '{name}': fuse_conv_bn=True folds BatchNorms by their position, and here it "
            'cannot be checked that this is right: the probe of the teacher failed. Set '
            'fuse_conv_bn=False.'
        )
    limit = EXACT
    for step, requested in steps:
        if requested:
            limit = max(limit, step.limit)
            _apply(name, teacher, teacher.model, step, before, limit, show)
        elif not before:
            teacher.notes.append(f'without {step.text}: the probe failed, so it cannot be checked')
        elif _survives(name, teacher, step, before, max(limit, step.limit), show):
            limit = max(limit, step.limit)
            step.apply(teacher.model)
    if teacher.compiled is not None:
        _compile(teacher, show(teacher.model))


def _compile(teacher: Teacher, found: Found) -> None:
    """Capture the teacher and try the compiler, or let the teacher run as it is; say which."""
    compiled, teacher.compiled = teacher.compiled, None
    if found.evaluated is None:
        teacher.compile_note = f'compile: left out, the probe failed: {found.reason}'
        return
    image = found.evaluated.inputs
    inputs = image.to(dtype=teacher.dtype or image.dtype, memory_format=teacher.memory_format)
    try:
        with torch.no_grad(), teacher.precision(inputs.device.type):
            note = compiled.rehearse(inputs, dummy_samples(found.size))
        check_compiler(get_device())
    except Exception as error:  # whatever a network does or a compiler says
        teacher.compile_note = f'compile: left out: {reason(error)}'
        print_log(f'teacher.{teacher.compile_note}.', 'current', WARNING)
        return
    teacher.compiled, teacher.compile_note = compiled, f'compile: {note}'


def _survives(
    name: str,
    teacher: Teacher,
    step: Step,
    before: dict[str, list[Tensor]],
    limit: float,
    show: Callable[[nn.Module], Found],
) -> bool:
    """Try an option on a copy, and log the result."""
    old = teacher.dtype
    teacher.dtype = step.dtype or old
    try:
        error = _apply(name, teacher, copy.deepcopy(teacher.model), step, before, limit, show)
    except ValueError as refusal:
        teacher.dtype = old
        reason = str(refusal).partition(': ')[2].partition('. ')[0]
        teacher.notes.append(f'without {step.text}: {reason}')
        return False
    if step is _CHANNELS_LAST:
        teacher.memory_format = torch.channels_last
    teacher.notes.append(f'{step.text} changes the taps by at most {error:.2g}')
    return True


def _apply(
    name: str,
    teacher: Teacher,
    model: nn.Module,
    step: Step,
    before: dict[str, list[Tensor]],
    limit: float,
    show: Callable[[nn.Module], Found],
) -> float:
    """Apply one option to a network; returns the largest change of an output.

    Raises:
        ValueError: it cannot be applied, or changes more than ``limit``.
    """
    try:
        step.apply(model)
    except RuntimeError as error:
        raise ValueError(
            f"teacher '{name}': {step.text} cannot be applied to {type(model).__name__} "
            f'({error}). {ADVICE[step.text]}'
        ) from None
    if not before:
        return nan
    device = next(model.parameters()).device.type
    with teacher.precision(device) if limit > EXACT else contextlib.nullcontext():
        found = show(model)
    if not _ran(name, step.text, before, found):
        return nan
    return _compare(name, step.text, before, _answers(model, found.evaluated), limit)


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


def _steps(teacher: Teacher) -> Iterator[tuple[Step, bool]]:
    """Options to apply, BatchNorms first, and whether the config names them.

    Those of ``fast=True`` depend on the network and the machine alone: a resumed run has the same.
    """
    if teacher.fuse_conv_bn or teacher.fast:
        yield _FUSE, teacher.fuse_conv_bn
    if teacher.dtype in LIMITS:
        yield _precision(teacher.dtype), True
    elif teacher.fast and native_bf16():
        yield _precision(torch.bfloat16), False
    requested = teacher.memory_format == torch.channels_last
    # RoIAlign reads contiguous maps, so they would be copied back.
    if requested or (teacher.fast and not hasattr(teacher.model, 'roi_head')):
        yield _CHANNELS_LAST, requested


def native_bf16() -> bool:
    """Whether this machine computes in bf16, rather than in float32 with conversions."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported()


def _precision(dtype: torch.dtype) -> Step:
    name = {torch.float16: 'fp16', torch.bfloat16: 'bf16'}[dtype]
    return Step(f'dtype={name!r}', lambda model: model.to(dtype=dtype), LIMITS[dtype], dtype)


_FUSE = Step('fuse_conv_bn=True', fuse)
_CHANNELS_LAST = Step(
    "memory_format='channels_last'", lambda model: model.to(memory_format=torch.channels_last)
)


def _advice(option: str, found: list[Tensor] | None) -> str:
    """What to do about an option that changes outputs, which are now ``found``."""
    if option != "dtype='fp16'" or found is None:
        return ADVICE[option]
    return AMPLIFIED if all(bool(x.isfinite().all()) for x in found) else OVERFLOW


def _answers(model: nn.Module, side: Side | None) -> dict[str, list[Tensor]]:
    """All numbers at the taps, and those of a second stage if its features are tapped."""
    if side is None:
        return {}
    found = {place: _numbers(calls) for place, calls in side.calls.items()}
    feats = two_stage.features_tap(model)
    if getattr(model, 'roi_head', None) is not None and side.raw(feats):
        rois = torch.tensor([(0, *box) for box in ROIS]).to(side.inputs)
        # Where the model has no such box head, no method asks it either.
        with contextlib.suppress(Exception):
            answers = two_stage.roi_outputs(model, side[feats], rois)
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
) -> float:
    """The largest change of an output; ValueError if it is more than ``limit``."""
    largest = 0.0
    for place, tensors in before.items():
        found = after.get(place)  # a second stage may fail behind what was tapped
        error = nan if found is None else max(map(largest_change, tensors, found), default=0.0)
        if not error <= limit:  # NaN is no small change
            raise ValueError(
                f"teacher '{name}': {option} changes what {place!r} shows by {error:.2g} of its "
                f'largest number, where rounding explains {limit:g}. {_advice(option, found)}'
            )
        largest = max(largest, error)
    return largest
