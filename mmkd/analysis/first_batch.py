"""One real batch: value, gradient norms and logged counts of each term."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.analysis.gradients import at_full_value
from mmkd.checks.guard import Guard, own_losses, task_losses
from mmkd.distiller import Distiller
from mmkd.functional.gradients import gradients_at
from mmkd.functional.nested import flatten
from mmkd.tap import Recorder, Tap, Trace


class _Listener(Guard):
    """A guard that records values and checks nothing."""

    def __init__(self) -> None:
        super().__init__(steps=0)
        self.shown: tuple[Any, Any, Any] = ({}, {}, {})

    def __call__(self, distiller: Any, task: Any, terms: Any, traces: Any) -> None:
        self.shown = dict(task), terms, traces


class _Recorder(Recorder):
    """A recorder that also adds up the gradients at its tensors, in any backward pass."""

    def __init__(self, model: nn.Module, taps: Iterable[Tap]) -> None:
        super().__init__(model, taps)
        self.arrived: dict[str, list[float]] = {}

    def _store(self, tap: Tap, side: Any, watch: dict) -> Callable[[Any], None]:
        store = super()._store(tap, side, watch)

        def record(value: Any) -> None:
            for tensor in flatten(value):
                sums = self.arrived.setdefault(tap.source, [])
                if tensor.requires_grad:
                    tensor.register_hook(partial(self._add, sums, len(sums)))
                sums.append(0.0)
            store(value)

        return record

    @staticmethod
    def _add(sums: list[float], position: int, gradient: Tensor) -> None:
        sums[position] += float(gradient.detach().float().square().sum())

    def norms(self, loss: Tensor, parameters: list[Tensor]) -> dict[str, list[float]]:
        """Squared length of the gradient of a loss at each recorded tensor."""
        for sums in self.arrived.values():
            sums[:] = [0.0] * len(sums)
        gradients_at(loss, parameters)
        return {source: list(sums) for source, sums in self.arrived.items()}


def report_step(model: Distiller, data: Any) -> str:
    """Run a training batch and describe every term.

    Gradients are those of the weighted terms with regard to the student's tapped tensors, over
    that of the student's own losses at the same place. Schedules count at their full value, and
    nothing is updated.

    Args:
        model (Distiller): in training mode; it gets other recorders.
        data: a batch, as a dataloader gives it.

    Raises:
        ValueError: whatever a first step raises.
    """
    at_full_value(model)
    model.guard = guard = _Listener()
    recorders = {
        w: _Recorder(model.plan.network(w), model.plan.taps_of(w)) for w in model.plan.living
    }
    model.recorder = recorders['student']
    model.peers.recorders.update({name: recorders[name] for name in model.peers})
    model(**model.data_preprocessor(data, True), mode='loss')
    return '\n'.join(_lines(model, recorders, *guard.shown))


def _lines(
    model: Distiller,
    recorders: Mapping[str, _Recorder],
    task: Mapping[str, Any],
    terms: Mapping[str, Mapping[str, Tensor]],
    traces: Mapping[str, Trace],
) -> Iterator[str]:
    learnt: dict[str, list[Tensor]] = {}
    norms: dict[str, dict[str, list[float]]] = {}
    for who, recorder in recorders.items():
        own = task_losses(own_losses(task, who))
        total = sum((value.sum() for _, value in own), torch.zeros(()))  # derived below
        sums: dict[str, float] = {}
        for key, value in own:
            sums[key] = sums.get(key, 0.0) + float(value.detach().sum())
        values = ', '.join(f'{key} {value:.4g}' for key, value in sums.items())
        told = f'{sum(sums.values()):.4g} ({values})' if own else 'no losses of its own'
        yield f'{who}: {told}'
        learnt[who] = [p for p in model.plan.network(who).parameters() if p.requires_grad]
        norms[who] = recorder.norms(total, learnt[who])
    for name in traces:
        objective = model.objectives[name]
        who = objective.learner
        yield f'objective {name}: {type(objective).__name__}, weight {objective.weight}'
        for key, value in terms[name].items():
            if key.startswith(f'kd.{name}.loss'):
                yield f'  {key} = {float(value.detach()):.4g}'
                found = recorders[who].norms(value, learnt[who])
                for tap in objective.student_taps:
                    yield from _at(tap, found, norms[who])
        counts = {k: float(v.detach()) for k, v in terms[name].items() if '.loss' not in k}
        if counts:
            yield '  logged: ' + ', '.join(f'{k} = {v:.4g}' for k, v in counts.items())


def _at(tap: Tap, found: dict[str, list[float]], wanted: dict[str, list[float]]) -> Iterator[str]:
    """How long the gradients of term and task are at a tap."""
    own, task = (_length(sums.get(tap.source, []), tap) for sums in (found, wanted))
    if own or task:
        share = f'{own / task:.3g} x that of the task ({task:.3g})' if task else 'the task has none'
        yield f'    at {tap}: gradient {own:.3g}, {share}'


def _length(sums: list[float], tap: Tap) -> float:
    chosen = sums if tap.index is None else sums[tap.index]
    return sum(chosen if isinstance(chosen, list) else [chosen]) ** 0.5
