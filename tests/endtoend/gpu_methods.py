"""Every method on a GPU beside the CPU: the same losses and gradients, few waits, finite under AMP."""

from __future__ import annotations

import copy
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from cases import batch, build, networks, pairs, terms, total
from mmengine.registry import init_default_scope
from torch import nn

from mmkd.distiller import Distiller

#: relative to the largest number; above it a method is told, not refused, if it draws numbers
TOLERANCE = 2e-3


@dataclass
class Outcome:
    """What one method on one family did on the device.

    Attributes:
        loss, gradient (float): largest difference from the CPU, relative to the larger number.
        draws (bool): whether it draws random numbers on the device, so that it must differ.
        amp (str): its loss under autocast, as text.
        waits (Counter): waits of the objective's forward in a later step, by line.
        problem (str): what went wrong; empty where nothing did.
    """

    name: str
    loss: float = 0
    gradient: float = 0
    draws: bool = False
    amp: str = ''
    waits: Counter = field(default_factory=Counter)
    problem: str = ''


def outcomes(device: str) -> list[Outcome]:
    """Of every method on every family that it declares."""
    found = []
    for name, family in pairs():
        outcome = Outcome(f'{name} on {family}')
        try:
            _try(outcome, name, family, device)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = str(error).split('\n')[0]
            outcome.problem = (
                f'{type(error).__name__}: {text} ({where.filename[-60:]}:{where.lineno})'
            )
        found.append(outcome)
    return found


def _try(outcome: Outcome, name: str, family: str, device: str) -> None:
    reference, own = (_distiller(name, family, place) for place in ('cpu', device))
    wanted, found = (_step(d, family, place) for d, place in ((reference, 'cpu'), (own, device)))
    outcome.draws = found.draws
    outcome.loss = max(_apart(found.losses[k], wanted.losses[k]) for k in wanted.losses)
    outcome.gradient = _apart(found.gradient, wanted.gradient)
    data = _on(device, batch(family))
    outcome.waits = waits_of(own.objectives['it'], lambda: terms(own, data), device)
    if not outcome.draws and max(outcome.loss, outcome.gradient) > TOLERANCE:
        outcome.problem = (
            f'differs from the CPU: losses {outcome.loss:.1g}, gradients {outcome.gradient:.1g}'
        )
    with torch.autocast(device, torch.float16 if device == 'cuda' else torch.bfloat16):
        loss = total(terms(own, _on(device, batch(family)))).detach()
    outcome.amp = f'{float(loss):.4g}'
    if not torch.isfinite(loss):
        outcome.problem = f'{outcome.amp} under autocast'


@dataclass
class _Step:
    losses: dict[str, float]
    gradient: float
    draws: bool


def _distiller(name: str, family: str, device: str) -> Distiller:
    """Always the same weights."""
    init_default_scope('mmdet')
    student, teacher = networks(family)
    torch.manual_seed(0)
    return build(name, family, copy.deepcopy(student), copy.deepcopy(teacher)).to(device)


def _on(device: str, data: tuple) -> tuple:
    inputs, samples = data
    return inputs.to(device), [sample.to(device) for sample in samples]


def _step(distiller: Distiller, family: str, device: str) -> _Step:
    """Losses, the norm of the objective's gradient, and whether the device's numbers were drawn."""
    torch.manual_seed(0)  # as `terms` does before the step
    before = _state(device)
    result = terms(distiller, _on(device, batch(family)))
    draws = not torch.equal(before, _state(device))
    loss = total(result)
    parameters = [p for p in distiller.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    norm = sum(float(g.double().square().sum()) for g in gradients if g is not None) ** 0.5
    return _Step({k: float(v.detach()) for k, v in result.items()}, norm, draws)


def _state(device: str) -> torch.Tensor:
    """Of the generator from which the device draws."""
    return torch.cuda.get_rng_state() if device == 'cuda' else torch.get_rng_state()


def _apart(found: float, wanted: float) -> float:
    return abs(found - wanted) / max(abs(found), abs(wanted), 1e-6)


def waits_of(objective: nn.Module, step: Callable[[], object], device: str) -> Counter:
    """Waits for the GPU in the objective's forward during a step, by line, as torch reports them."""
    counted: Counter = Counter()
    if device != 'cuda':
        return counted
    forward = objective.forward

    def watched(trace):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            torch.cuda.set_sync_debug_mode('warn')
            try:
                return forward(trace)
            finally:
                torch.cuda.set_sync_debug_mode('default')
                for warning in caught:
                    # torch also warns that its debug mode is new
                    if 'called a synchronizing' in str(warning.message):
                        counted[f'{warning.filename[-48:]}:{warning.lineno}'] += 1

    objective.forward = watched
    try:
        step()
    finally:
        objective.forward = forward
    return counted
