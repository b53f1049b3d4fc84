"""Two training steps of methods that fit by the plan, to check the plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.analysis.fits import MethodFit, Pair
from mmkd.distiller import Distiller


def try_steps(
    pair: Pair, fits: Sequence[MethodFit], batch: tuple[Tensor, list], steps: int = 2
) -> dict[str, str]:
    """Train ``steps`` steps with the methods that fit, under the checks of the first steps.

    All of them train at once, as objectives of one run. One that stops it is noted and left out of
    the next run.

    Args:
        pair (Pair): student and teacher; the student learns.
        fits (Sequence[MethodFit]): of which those without a reason are tried, with their options.
        batch: pixels and samples for the student, taken for every step.

    Returns:
        dict[str, str]: by method, what stopped the run or was found dead; empty where nothing.
    """
    entries = {
        fit.method: dict(type=f'mmkd.{fit.method}', **fit.options)
        for fit in fits
        if not fit.reason and not fit.crash
    }
    found: dict[str, str] = {}
    while entries:
        try:
            _train(pair, entries, batch, steps)
        except Exception as error:
            name = _culprit(error, entries)
            if name is None:  # the run itself, e.g. the student's own losses
                raise
            found[name] = f'{type(error).__name__}: {" ".join(str(error).split())}'
            del entries[name]
        else:
            return found | dict.fromkeys(entries, '')
    return found


def _train(
    pair: Pair, entries: Mapping[str, dict[str, Any]], batch: tuple[Tensor, list], steps: int
) -> None:
    distiller = Distiller(pair.student, entries, pair.teacher, preflight=dict(steps=steps)).train()
    optimizer = torch.optim.SGD(distiller.parameters(), lr=1e-4)
    for _ in range(steps):
        losses = distiller(*batch, mode='loss')
        optimizer.zero_grad()
        distiller.parse_losses(losses)[0].backward()
        nn.utils.clip_grad_norm_(distiller.parameters(), 1.0)
        optimizer.step()


def _culprit(error: BaseException, names: Mapping[str, Any]) -> str | None:
    """The objective that was at work when an error was raised."""
    found, trace = None, error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_locals.get('name')
        found = name if isinstance(name, str) and name in names else found
        trace = trace.tb_next
    if found is None:
        found = next((name for name in names if f'kd.{name}.' in str(error)), None)
    return found
