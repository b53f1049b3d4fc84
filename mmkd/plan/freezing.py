"""Parameters that nobody trains in a run carry no gradient, before optimisers and DDP see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from logging import WARNING

import torch
from mmengine.logging import print_log
from torch import nn

from mmkd.objective import Objective
from mmkd.plan.probe import probe
from mmkd.tap import Tap
from mmkd.trains import PLAYERS, Trains, player_of

#: parts of the student that are listed
SHOWN = 6


def freeze(
    networks: Mapping[str, nn.Module],
    objectives: Mapping[str, Objective],
    trains: Trains,
    tasks: bool = True,
    size: int = 256,
) -> list[str]:
    """Freeze players that do not train, and what an untaught part of the student has.

    Args:
        networks (dict[str, nn.Module]): the student and its peers.
        trains (Trains): who trains.
        tasks (bool): the student's own losses are computed.
        size (int): side of the image with which the student was probed.

    Returns:
        list[str]: names of the student's parameters behind its taps, which nothing reaches.

    Raises:
        ValueError: nobody trains in some step; without the student's own losses, a tap that is only
            reached on the way to them.
    """
    for objective in objectives.values():
        if objective.weight.is_zero or 'objectives' not in trains:
            objective.requires_grad_(False)
    for name, network in networks.items():
        if player_of(name) not in trains:
            network.requires_grad_(False)
    lost: dict[str, nn.Parameter] = {}
    if 'student' in trains and not tasks:
        heard = {k: o for k, o in objectives.items() if o.learner == 'student'}
        lost = beyond_taps(networks['student'], heard, size)
        for parameter in lost.values():
            parameter.requires_grad_(False)
    able = {player_of(name) for name, network in networks.items() if _learns(network)}
    if any(map(_learns, objectives.values())):
        able.add('objectives')
    trains.check(able)
    return list(lost)


def _learns(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters())


@torch.enable_grad()  # whoever builds a Distiller without gradients gets the same plan
def beyond_taps(
    student: nn.Module, objectives: Mapping[str, Objective], size: int
) -> dict[str, nn.Parameter]:
    """Trained parameters, by name, that no gradient at a tap would reach.

    A backward pass decides, because activation checkpointing hides parameters from the graph.
    Where the network cannot be probed there are none: they merely get no gradient.
    """
    taps = [tap for o in objectives.values() if not o.weight.is_zero for tap in o.student_taps]
    trained = {name: p for name, p in student.named_parameters() if p.requires_grad}
    try:
        side = probe(student, taps, size, gradients=True)
    except Exception as error:
        text = f'{type(student).__name__} could not be probed: {type(error).__name__}: {error}'
        print_log(text, 'current', WARNING)
        return {}
    for name, objective in objectives.items():
        _check_reached(name, [tap for tap in objective.student_taps if not side.raw(tap)])
    found = [t for tap in taps for t in side.seen(tap) if t.requires_grad]
    if found:
        sum(tensor.float().sum() for tensor in found).backward()
    lost = {name: p for name, p in trained.items() if p.grad is None}
    for parameter in trained.values():
        parameter.grad = None
    return lost


def _check_reached(name: str, silent: list[Tap]) -> None:
    if silent:
        raise ValueError(
            f"objective '{name}': without its own losses (task_weight=None) the student runs in "
            f"mode='tensor', in which {', '.join(map(str, silent))} is not reached. Set "
            'task_weight=0, with which the losses are computed and do not count.'
        )


def describe_trains(trains: Trains, untaught: Sequence[str]) -> list[str]:
    """Lines of the plan on who trains, where not everything does all the time."""
    every = trains.turns == Trains.of(PLAYERS).turns
    lines = [] if every else [f'trains: {trains}']
    if untaught:
        shown = ', '.join(behind(untaught))
        lines.append(f'  behind the taps of the student, and so not trained: {shown}')
    return lines


def behind(untaught: Sequence[str]) -> list[str]:
    """The modules of these parameters, the first few and an ellipsis."""
    parts = [*dict.fromkeys(name.rpartition('.')[0] for name in untaught)]
    return [*parts[:SHOWN], *(['…'] if len(parts) > SHOWN else [])]
