"""What the exits of a classifier say in one step: taps at its stages, and rows of all exits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.adapters.exits import Exit, build_exits
from mmkd.families import classifier
from mmkd.levels import Level
from mmkd.objective import Objective
from mmkd.rows import logits
from mmkd.tap import Side, Tap, Trace, parse_taps

LAST = ('backbone[-1]', classifier.LOGITS)


class Answers(NamedTuple):
    """Of the exits and of the network itself.

    Attributes:
        logits, features (list[Tensor]): (N, K) and (N, D) of each exit, shallowest first.
        last (Tensor): logits (N, K) of the network.
        deepest (Tensor): its last map, pooled, (N, D).
    """

    logits: list[Tensor]
    features: list[Tensor]
    last: Tensor
    deepest: Tensor


def bind_exits(objective: Objective, student: nn.Module) -> None:
    """Choose the taps: the cuts, by default behind all stages but the last; then all stages.

    Raises:
        ValueError: no classifier of two or more classes, or one whose stages are not known; a cut
            that has the shape of a stage and is none.
    """
    cuts = objective.student_taps
    logits.bind_images(objective, student, None)
    stages = parse_taps(classifier.stage_taps(student))
    cuts = cuts or stages[:-1]
    if not {*cuts} <= {*stages}:
        side = classifier.shown(student, [*cuts, *stages])
        check_cuts(type(objective).__name__, side, cuts, stages)
    objective.cuts = cuts
    objective.student_taps = (*cuts, *stages, *parse_taps(LAST))


def check_cuts(owner: str, side: Side, cuts: Sequence[Tap], stages: Sequence[Tap]) -> None:
    """Each cut must give what a stage gives, not only its shape; else ValueError.

    Args:
        owner (str): for the message.
        side (Side): a record of cuts and stages.
    """
    known = [x for stage in stages for x in side[stage]]
    for cut in cuts:
        for x in side[cut]:
            alike = [stage for stage in known if stage.shape == x.shape]
            if alike and not any(torch.equal(stage, x) for stage in alike):
                raise ValueError(
                    f'{owner}: the cut {cut} has the shape of a stage, but other values, so that '
                    'an exit behind the stage could not take its place; cut behind '
                    f'{", ".join(map(str, stages[:-1]))}.'
                )


def make_exits(objective: Objective, seen: Sequence[Level] | None, num_classes: int) -> list[Exit]:
    """The exits for the shapes of a probe at the taps of :func:`bind_exits`.

    Raises:
        ValueError: shapes that are not known, or unsuitable cuts.
    """
    owner = type(objective).__name__
    if not seen:
        raise ValueError(
            f'{owner}: the stages of the student could not be probed, so that its exits have no '
            'widths; cuts must be maps that a plain forward pass shows.'
        )
    count = len(objective.student_taps) - len(objective.cuts) - len(LAST)
    stages = seen[-count - len(LAST) : -len(LAST)]
    cuts = seen[: -count - len(LAST)]
    return build_exits(positions(owner, cuts, stages), stages, num_classes)


def positions(owner: str, cuts: Sequence[Level], stages: Sequence[Level]) -> list[int]:
    """The stage whose output each cut shows, counted from 0.

    Args:
        owner (str): for messages.
        cuts, stages (Sequence[Level]): shapes of one probe.

    Raises:
        ValueError: no cut; one that shows the output of no stage, that of the last one, or that
            does not lie behind the cut before it.
    """
    found: list[int] = []
    shown = ', '.join(str(stage) for stage in stages)
    for cut in cuts:
        fits = [i for i, stage in enumerate(stages) if stage.tap == cut.tap]
        fits = fits or [i for i, stage in enumerate(stages) if stage.shape == cut.shape]
        if not fits:
            raise ValueError(
                f'{owner}: the cut {cut.tap} shows {cut}, which is the output of no stage; the '
                f'stages give {shown}.'
            )
        behind = [i for i in fits if not found or i > found[-1]]
        if not behind:
            raise ValueError(
                f'{owner}: cuts must go deeper one after the other, but {cut.tap} shows stage '
                f'{fits[-1]} behind stage {found[-1]}, counted from 0; the stages give {shown}.'
            )
        if behind[0] == len(stages) - 1:
            raise ValueError(
                f'{owner}: the cut {cut.tap} shows the last stage, behind which the network has '
                f'its own exit; cut behind stages 0 to {len(stages) - 2}; the stages give {shown}.'
            )
        found.append(behind[0])
    if not found:
        raise ValueError(f'{owner} needs at least one cut behind a stage; the stages give {shown}.')
    return found


def answers(trace: Trace, cuts: Sequence[Tap], exits: Sequence[nn.Module]) -> Answers:
    """Run the exits on the maps of this step."""
    maps = [x for tap in cuts for x in trace.student[tap]]
    found = [branch(x) for branch, x in zip(exits, maps, strict=True)]
    last, deepest = trace.student[LAST[1]][0], trace.student[LAST[0]][0].mean((2, 3))
    return Answers([z for z, _ in found], [f for _, f in found], last, deepest)


def cross_entropies(trace: Trace, scores: Sequence[Tensor], target: Tensor) -> list[Tensor]:
    """Cross entropy of each of several logits (N, K), with the student's own label smoothing.

    Args:
        target (Tensor): classes (N,) or shares (N, K).
    """
    smoothing = float(getattr(trace.student.model, 'label_smoothing', 0.0))
    return [F.cross_entropy(z, target, label_smoothing=smoothing) for z in scores]


def sizes_of(exits: Sequence[nn.Module]) -> list[str]:
    """A line on each exit, for the plan."""
    return [
        f'exit {i}: {sum(p.numel() for p in branch.parameters()):,} parameters'
        for i, branch in enumerate(exits)
    ]
