"""Checks that losses and gradients are finite, once per step, before the update."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch
from mmengine.dist import all_gather_object, get_world_size
from torch import Tensor
from torch.optim import Optimizer

from mmkd.generators import rewind, snapshot
from mmkd.tap import Trace

Named = list[tuple[str, Tensor]]


def task_losses(task: Mapping[str, Any]) -> Named:
    """(key, tensor) of each of the student's own losses, lists flattened."""
    return [(key, value) for key, value in _tensors(task) if 'loss' in key]


def _tensors(task: Mapping[str, Any]) -> Named:
    """Also of what is only logged."""
    pairs = []
    for key, value in task.items():
        values = value if isinstance(value, (list, tuple)) else [value]
        pairs += [(key, v) for v in values if isinstance(v, Tensor)]
    return pairs


def all_values(task: Mapping[str, Any], terms: Mapping[str, Mapping[str, Tensor]]) -> Named:
    """Everything that a step computed: the student's own losses, then those of objectives."""
    return _tensors(task) + [pair for term in terms.values() for pair in term.items()]


def check_losses(distiller: Any, named: Named, traces: Mapping[str, Trace]) -> None:
    """Synchronise with the device once, and stop at a loss that is not finite.

    Raises:
        FloatingPointError: the batch, a teacher or a loss is not finite, in this order.
    """
    if not named or bool(torch.stack(_flags(named)).all()):
        return
    check_teachers(distiller, traces)
    raise FloatingPointError(_losses_message(named))


def check_teachers(distiller: Any, traces: Mapping[str, Trace]) -> None:
    """A teacher's NaN makes every loss NaN, and the pixels' NaN makes the teacher's.

    Raises:
        FloatingPointError: which of the two, and where.
    """
    for name, trace in traces.items():
        taps = distiller.objectives[name].teacher_taps
        for teacher, tap in product(trace.teachers, taps):
            if all(_is_finite(tensor) for tensor in trace.teachers[teacher].seen(tap)):
                continue
            if not _is_finite(trace.inputs):
                files = [str(getattr(s, 'img_path', 'without a name')) for s in trace.samples]
                raise FloatingPointError(
                    f'the pixels of a batch hold NaN or infinity ({", ".join(files)}). Look at '
                    'these images, and at mean and std of the data_preprocessor.'
                )
            raise FloatingPointError(
                f"teacher '{teacher}': its '{tap}', which objective "
                f"'{name}' compares, holds NaN or infinity on a real batch. Is its checkpoint "
                "sound? With dtype='fp16' try 'bf16' or none."
            )


class GradientWatch:
    """Checks the losses and gradients of a step before the update.

    It synchronises with the device once and replaces the guard's check of losses. If a gradient is
    not finite, the batches since the last update run once more, from the random states that they
    had, and the gradient of each term is computed by itself. Until then nothing but references to
    these batches is kept.

    Args:
        distiller (Distiller): the trained model.
        optimizers (list[Optimizer]): all that step together, the first of them first.
        accumulated (int): batches to an update.
    """

    def __init__(self, distiller: Any, optimizers: list[Optimizer], accumulated: int = 1) -> None:
        self.distiller, self.optimizers = distiller, optimizers
        self.batches: deque[_Batch] = deque(maxlen=accumulated)
        self.handle = optimizers[0].register_step_pre_hook(self)
        distiller.guard.watch = self

    def __deepcopy__(self, memo: dict) -> None:
        return None  # an average of the weights is not trained

    def remove(self) -> None:
        """Leave the losses to the guard again."""
        self.handle.remove()
        self.distiller.guard.watch = None

    def begin(self, inputs: Tensor, samples: list | None, more: dict) -> None:
        """Call with every batch before the student's forward pass."""
        if torch.is_grad_enabled():
            self.batches.append(_Batch(inputs, samples, more, snapshot()))

    def expect(self, named: Named) -> None:
        """Call with the losses of the batch, which are checked before the next update."""
        if self.batches:
            self.batches[-1].named = [(key, value.detach()) for key, value in named]

    def __call__(self, optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
        """Called by the optimiser before it steps, with gradients clipped and reduced.

        Raises:
            FloatingPointError: a loss, a gradient, a teacher or the pixels; the update has not
                taken place.
        """
        batches, named = list(self.batches), [pair for b in self.batches for pair in b.named]
        self.batches.clear()
        gradients = _dense(p.grad for p in self._parameters())
        norms = torch._foreach_norm(gradients) if gradients else ()
        flags = _flags(named) + [norm.isfinite() for norm in norms]
        if not flags or bool(torch.stack([flag.to(flags[0].device) for flag in flags]).all()):
            return
        if all(map(_is_finite, gradients)):
            if all(map(bool, _flags(named))):
                return  # of large numbers the squares alone are infinite
            raise FloatingPointError(_losses_message(named))
        # Gradients are the same on all ranks, so all of them come here, and run the same again.
        found = [_local_findings(self.distiller, self._parameters(), batch) for batch in batches]
        everywhere = all_gather_object(found) if get_world_size() > 1 else [found]
        raise FloatingPointError(_message([f for rank in everywhere for f in rank]))

    def _parameters(self) -> list[Tensor]:
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        return [p for group in groups for p in group['params']]


@dataclass
class _Batch:
    """Inputs and losses of one forward pass."""

    inputs: Tensor
    samples: list | None
    more: dict
    random_state: tuple
    named: Named = field(default_factory=list)


@dataclass
class _Findings:
    """The error of one batch: a whole sentence, or the names of losses or terms."""

    sentence: str = ''
    terms: list[str] = field(default_factory=list)


class _Capture:
    """Stands in for the guard while a batch runs once more."""

    watch = None
    batches = 0

    def look_at(self, student: Any, samples: list) -> None:
        """Labels were checked the first time."""

    def __call__(self, distiller: Any, task: Mapping, terms: Mapping, traces: Mapping) -> None:
        self.named, self.traces = all_values(task, terms), traces


def _local_findings(distiller: Any, parameters: list[Tensor], batch: _Batch) -> _Findings:
    """Run a batch again and find out whose gradient is not finite on this rank."""
    for parameter in parameters:
        parameter.grad = None  # makes room; the run ends here
    guard, capture = distiller.guard, _Capture()
    distiller.guard = capture
    rewind(batch.random_state)
    try:
        distiller.loss(batch.inputs, batch.samples, **batch.more)
        terms = [(k, v) for k, v in capture.named if 'loss' in k and v.requires_grad]
        # First, and all of them, on every rank: a backward pass may wait for the other ranks.
        bad = [key for key, value in terms if not _has_finite_gradient(value, parameters)]
        check_losses(distiller, capture.named, capture.traces)
        check_teachers(distiller, capture.traces)
        if not bad and not all(bool(flag) for flag in _flags(batch.named)):
            return _Findings(sentence=_losses_message(batch.named))  # not so the second time
        return _Findings(terms=list(dict.fromkeys(bad)))
    except FloatingPointError as error:
        return _Findings(sentence=str(error))
    finally:
        distiller.guard = guard


def _has_finite_gradient(value: Tensor, parameters: list[Tensor]) -> bool:
    wanted = [p for p in parameters if p.requires_grad]
    found = torch.autograd.grad(value.mean(), wanted, retain_graph=True, allow_unused=True)
    return all(map(_is_finite, _dense(found)))


def _message(found: list[_Findings]) -> str:
    for one in found:
        if one.sentence:
            return one.sentence
    terms = list(dict.fromkeys(term for one in found for term in one.terms))
    if not terms:
        return (
            'training stopped before the update: the gradient of all losses together is not '
            'finite, that of each alone is. The weights are those of the step before. Lower the '
            'weights of the terms, or clip gradients.'
        )
    return (
        f'training stopped before the update: the gradient of {", ".join(terms)} is not finite, '
        'though the value is. The weights are those of the step before. Look there for a root, a '
        'logarithm or a division at 0; else lower the learning rate or its weight.'
    )


def _losses_message(named: Named) -> str:
    found = [
        f'{key} = {float(value.detach().float().sum())}'
        for (key, value), ok in zip(named, _flags(named), strict=True)
        if not bool(ok)
    ]
    bad = dict.fromkeys(found)  # a head has a loss of one name for each level
    return (
        f'training stopped before the update: {", ".join(bad)}. The weights are those of the step '
        'before. Lower the learning rate or the weight of the term, clip gradients, or train '
        'without AMP.'
    )


def _flags(named: Named) -> list[Tensor]:
    return [value.detach().float().sum().isfinite() for _, value in named]


def _dense(gradients: Iterable[Tensor | None]) -> list[Tensor]:
    found = [g for g in gradients if g is not None]
    return [(g._values() if g.is_sparse else g).detach() for g in found]


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())
