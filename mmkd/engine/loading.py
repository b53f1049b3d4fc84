"""Weights of a file in a run: ``load_from`` takes what fits and says what not, ``resume`` all."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from logging import INFO, WARNING
from typing import Any

from mmengine.logging import print_log
from torch import nn

from mmkd.checkpoint import CheckpointError
from mmkd.checkpoint.fitting import COUNTER, Fit, load_weights
from mmkd.checkpoint.weights import OBJECTIVES


def revised(checkpoint: dict, revise_keys: list) -> dict:
    """The checkpoint with its weights renamed by mmengine's pairs (pattern, replacement)."""
    state = checkpoint.get('state_dict')
    if not isinstance(state, Mapping) or not revise_keys:
        return checkpoint
    renamed: OrderedDict = OrderedDict()
    for key, value in state.items():
        for pattern, replacement in revise_keys:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    if hasattr(state, '_metadata'):
        renamed._metadata = state._metadata  # type: ignore[attr-defined]
    return dict(checkpoint, state_dict=renamed)


def load_some(
    model: nn.Module, state: Mapping, source: str, prefix: str = '', strict: bool = False
) -> None:
    """Load what fits; one line if that is all, three if it is not.

    Raises:
        ValueError: nothing fits, or with ``strict`` not all.
    """
    fit = load_weights(model, state, prefix)
    fit = replace(fit, missing=[k for k in fit.missing if not k.startswith(OBJECTIVES)])
    lost, own = {*fit.missing, *fit.shapes}, [k for k in model.state_dict() if _says_much(k)]
    if all(key in lost for key in own):
        raise ValueError(_nothing_fits(fit, list(state), own, source))
    lines = fit.without([COUNTER]).lines()
    count = f'all {fit.total}' if not lost else f'{fit.loaded} of {fit.total}'
    under = f", found under '{prefix}'" if prefix else ''
    head = f'load_from {source}: {count} weights of {fit.model} were loaded{under}'
    text = '\n'.join([head, *lines[:1], *(['; '.join(lines[1:])] if lines[1:] else [])])
    if strict and lines:
        raise ValueError(f'load_checkpoint(strict=True) wants all weights, but {text}')
    print_log(text, logger='current', level=WARNING if lines else INFO)


def _says_much(key: str) -> bool:
    return not (re.search(COUNTER, key) or key.startswith(OBJECTIVES))


def _nothing_fits(fit: Fit, keys: list[str], own: list[str], source: str) -> str:
    hint = 'Is it the checkpoint of another model?'
    if fit.part:
        hint = (
            f'They are those of its {fit.part} alone: give that '
            f"init_cfg=dict(type='Pretrained', checkpoint='{source}') instead of load_from."
        )
    return (
        f'load_from {source}: none of its {len(keys)} weights ({", ".join(keys[:2])}, …) fits '
        f'{fit.model}, which needs {", ".join(own[:2])}, …. {hint}'
    )


def check_complete(fit: Fit, source: str) -> None:
    """A run goes on with all its weights or not at all; what is left over is reported.

    Raises:
        CheckpointError: weights are missing or of another shape, or pixels were normalised
            otherwise.
    """
    needed = replace(fit, unexpected=[]).without([COUNTER]).lines()
    if needed:
        raise CheckpointError(
            f'cannot resume from {source}: it is of another {fit.model}: {"; ".join(needed)}. '
            'Resume with the same student and objectives, or take the weights alone: load_from '
            'without resume.'
        )
    spare = Fit(fit.model, fit.total, unexpected=fit.unexpected).lines()
    if spare:
        print_log(f'resume {source}: {spare[0]}', logger='current', level=WARNING)


def check_optimiser_state(checkpoint: Mapping, source: str, schedulers: Any) -> None:
    """A run goes on with the state of its optimiser and schedulers.

    Args:
        schedulers (list | dict | None): of this run, built or not.

    Raises:
        CheckpointError: one of them was not saved.
    """
    wanted = dict(optimizer=True, param_schedulers=bool(schedulers))
    missing = [key for key, needed in wanted.items() if needed and not checkpoint.get(key)]
    if missing:
        raise CheckpointError(
            f'cannot resume from {source}: it was saved without {" and ".join(missing)}, so the '
            'run would go on with another step size and no momentum. Save with '
            'CheckpointHook(save_optimizer=True, save_param_scheduler=True), or take the weights '
            'alone: load_from without resume.'
        )
