"""Optimisers of objectives that do not learn with the student's."""

from __future__ import annotations

from typing import Any

from mmengine.registry import OPTIMIZERS
from torch import nn
from torch.optim import Optimizer

from mmkd.objective import Objective


def key_of(name: str) -> str:
    """Name of the optimiser of the objective ``name``, formed like those of its losses."""
    return f'kd.{name}'


def updated(optim_wrapper: Any) -> dict[str, set[int]]:
    """Ids of the parameters that each optimiser of a run updates; a single one is called ''."""
    several = hasattr(optim_wrapper, 'items')
    return {
        name: {id(p) for group in wrapper.param_groups for p in group['params']}
        for name, wrapper in (optim_wrapper.items() if several else [('', optim_wrapper)])
    }


def own_optimizer(objective: Objective) -> Optimizer:
    """A new optimiser for the objective's parameters, by its ``optimizer``.

    Raises:
        ValueError: it cannot be built; the reason is torch's.
    """
    parameters = [p for p in objective.parameters() if p.requires_grad]
    config = objective.optimizer
    try:
        return OPTIMIZERS.build(dict(config, params=parameters))
    except (KeyError, TypeError, ValueError) as error:
        reason = error.args[0] if error.args else error
        raise ValueError(f'optimizer={config!r} cannot be built: {reason}') from None


def trained_apart(model: nn.Module) -> dict[str, Objective]:
    """By name, the objectives of a Distiller that learn with an optimiser of their own."""
    objectives = getattr(model, 'objectives', None)
    named = objectives.items() if isinstance(objectives, nn.ModuleDict) else ()
    return {
        name: objective
        for name, objective in named
        if objective.optimizer and any(p.requires_grad for p in objective.parameters())
    }
