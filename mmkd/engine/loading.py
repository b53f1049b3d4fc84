"""Requirements of a resumed run: all weights, the optimiser and the schedules."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from logging import WARNING
from typing import Any

from mmengine.logging import print_log

from mmkd.checkpoint import CheckpointError
from mmkd.checkpoint.fitting import COUNTER, Fit


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


def check_complete(fit: Fit, source: str) -> None:
    """Load all weights of the run or raise; unused entries of the file are reported.

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
    """A run continues with the state of its optimiser and schedulers.

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
