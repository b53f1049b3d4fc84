"""Checks of networks that learn beside the student, before the first step."""

from __future__ import annotations

from itertools import combinations
from logging import WARNING
from typing import Any

import torch
from mmengine.logging import print_log
from torch import nn

from mmkd.own_optimizers import updated
from mmkd.peers import peer_key


def check_peers(model: Any, optim_wrapper: Any, starts: bool) -> None:
    """Peers must start with other weights, and have an optimiser each.

    Args:
        model (Distiller): of the run.
        optim_wrapper (OptimWrapper): of the run.
        starts (bool): whether training begins; a resumed network was checked then.

    Raises:
        ValueError: two networks start with the same weights.
        RuntimeError: a peer without an optimiser of its own.
    """
    living = {'student': model.student, **model.peers}
    for one, other in combinations(living, 2) if starts else ():
        if same_weights(living[one], living[other]):
            raise ValueError(
                f"'{one}' and '{other}' start with the same weights, so they stay equal and have "
                'nothing to learn from each other. Give them other random weights: leave out '
                'init_cfg or load_from for one of them, or another checkpoint.'
            )
    known = updated(optim_wrapper)
    for name, network in model.peers.items():
        own = known.get(peer_key(name), set())
        if any(p.requires_grad and id(p) not in own for p in network.parameters()):
            raise RuntimeError(
                f"peer '{name}' needs an optimiser of its own, which mmkd.Runner builds from the "
                "student's optim_wrapper: name no other runner_type, and no optimiser that is "
                'built already.'
            )
        if not any(
            name in (objective.learner, *model.plan.teacher_names(objective))
            for objective in model.objectives.values()
        ):
            print_log(
                f"peer '{name}' is trained, but no objective learns from it or teaches it",
                logger='current',
                level=WARNING,
            )


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks have parameters of equal names and values."""
    first, second = (dict(model.named_parameters()) for model in (one, other))
    alike = first.keys() == second.keys() and all(
        first[key].shape == p.shape for key, p in second.items()
    )
    return alike and all(torch.equal(first[key].to(p), p) for key, p in second.items())
