"""Compares the first step of an objective with the plan."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mmkd.levels import Level
from mmkd.objective import Objective, PairObjective
from mmkd.tap import Side, Tap, Trace


def first_step_differs(
    objective: Objective, trace: Trace, planned: Sequence[list[Level] | None]
) -> str:
    """A sentence on the first tap whose tensors differ from the plan in number, width or stride.

    Only shapes are read, which does not synchronise with the device.

    Args:
        planned (Sequence[list[Level] | None]): of the learner and of each teacher, None where
            their taps could not be probed, and widths may be typed.

    Returns:
        str: empty if nothing differs.
    """
    probed = all(planned) or (bool(planned[0]) and not objective.needs_teacher)
    sides = [(objective.learner, trace.student, objective.student_taps, 0)]
    sides += [('teacher', side, objective.teacher_taps, 1) for side in trace.teachers.values()]
    for levels, (who, side, taps, position) in zip(planned, sides, strict=False):
        if not taps:
            continue
        if probed:
            texts = [_differs(levels or [], side, tap, list(taps).count(tap)) for tap in taps]
        else:
            texts = [_beyond_typed(objective, side, taps, position)]
        for text in filter(None, texts):
            return f"the {who}'s {text}"
    return ''


def _differs(planned: list[Level], side: Side, tap: Tap, times: int) -> str:
    """How a step's tensors at a tap, named so many times, differ from the plan; empty if not."""
    wanted = [level for level in planned if level.tap == str(tap)]
    wanted = wanted[: len(wanted) // times]
    if not wanted:
        return ''  # called in training only
    found = [Level.of(tensor, side.inputs, tap) for tensor in side[tap]]
    height = side.inputs.shape[2]
    if len(found) == len(wanted) and all(
        level.like(other, height) for level, other in zip(wanted, found, strict=True)
    ):
        return ''
    text = [', '.join(map(str, levels)) for levels in (found, wanted)]
    return (
        f"tap '{tap}' gave {text[0]} in the first step, but was planned with {text[1]}. Its "
        'forward does something else in training, or on these images; tap a place that does not '
        'change.'
    )


def _beyond_typed(objective: Objective, side: Side, taps: Sequence[Tap], position: int) -> str:
    """Errors at taps that were not probed, which the plan cannot know; empty without any."""
    if not isinstance(objective, PairObjective) or isinstance(objective.level_map, list):
        return ''
    maps = [(tap, t) for tap in taps if tap.is_output for t in side[tap] if t.dim() == 4]
    used = {pair[position] for pair in objective.pairs}
    if len(maps) > len(used):
        return (
            f'taps {", ".join(map(str, taps))} gave {len(maps)} maps in the first step, but they '
            f'could not be probed at build, and {len(used)} would be used. Name one level in '
            f"each objective, such as '{maps[0][0]}[0]'."
        )
    width = objective.widths[position]
    for tap, tensor in maps if width else ():
        if tensor.shape[1] != width:
            option = ('in_channels', 'out_channels')[position]
            return (
                f"tap '{tap}' gave {tensor.shape[1]} channels in the first step, but {width} are "
                f'written in the config; set {option}={tensor.shape[1]}.'
            )
    return ''


def is_one_place(objective: Objective, trace: Trace) -> bool:
    """Whether the two taps of a learner that listens to itself are two names of one value."""
    (heard,) = trace.teachers.values()
    own, judged = (
        [tensor for tap in taps for tensor in side.seen(tap)]
        for side, taps in ((trace.student, objective.student_taps), (heard, objective.teacher_taps))
    )
    # Layers that begin at zero give equal constants at two places.
    tells = [t for t in own if t.numel() > 1 and bool((t != t.flatten()[0]).any())]
    return bool(tells) and len(own) == len(judged) and all(map(torch.equal, own, judged))


def equals_itself(objective: Objective) -> str:
    """Why a learner cannot listen to itself at these taps."""
    taps = dict.fromkeys(map(str, (*objective.student_taps, *objective.teacher_taps)))
    return (
        f'{type(objective).__name__} compares {objective.learner} with itself at '
        f'{", ".join(taps)}, which is always equal. Name two places of it, such as '
        "student='auxiliary_head.conv_seg', teacher='decode_head.conv_seg', or another "
        'teacher_name.'
    )
