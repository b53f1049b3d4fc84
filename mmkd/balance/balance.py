"""Balance, the base class, and how its factors are applied to the terms of a step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from mmkd.functional.gradients import in_half
from mmkd.functional.nested import flatten
from mmkd.names import did_you_mean, turning
from mmkd.objective import Objective
from mmkd.options import check_number, read_options
from mmkd.registry import MODELS
from mmkd.schedule import Progress
from mmkd.tap import Tap, Trace

#: factor of a loss while its gradient passes through float16
SCALE = 1024.0
Terms = Mapping[str, Mapping[str, Tensor]]


class Balance:
    """Gives every objective a factor for one step, after the terms are known.

    Order of calls: ``__init__`` checks options; :meth:`bind` gets the objectives with their taps;
    :meth:`__call__` is called in every step of training in which an objective takes part. Its state
    is part of a checkpoint, under ``checkpoint['teachers']['balance']``.
    """

    #: taps of the student that it reads, beside those of the objectives
    taps: tuple[Tap, ...] = ()
    #: losses of value 0 that turn the gradient of a term, by objective, until the step adds them
    added: Mapping[str, Tensor] = {}
    #: whom it balances, set by :meth:`bind`
    objectives: Mapping[str, Objective]

    def bind(self, objectives: Mapping[str, Objective]) -> None:
        """Called once, at build; raises ValueError for objectives that it cannot balance.

        Those that train a peer are not balanced: their gradients are in another network.
        """
        self.objectives = {n: o for n, o in objectives.items() if o.learner == 'student'}

    def __call__(
        self, terms: Terms, task: Mapping[str, Any], trace: Trace, progress: Progress
    ) -> dict[str, float]:
        """Factors of the terms of this step, equal on all ranks; 1 where it says nothing.

        Args:
            terms (Mapping[str, Mapping[str, Tensor]]): by objective, its weighted losses and
                logged values, ``kd.<objective>.<key>``.
            task (Mapping[str, Any]): the student's own losses, scaled by ``task_weight``.
            trace (Trace): the student's side of the step.
            progress (Progress): of the training.
        """
        raise NotImplementedError(f'{type(self).__name__} has no __call__(terms, task, trace, …).')

    def logged(self) -> Mapping[str, float | Tensor]:
        """Further numbers for the log, by key."""
        return {}

    def describe(self) -> list[str]:
        """Lines for the plan; the first says what it does."""
        return [type(self).__name__]

    def state_dict(self) -> dict[str, Any]:
        """Plain values that a resumed run needs."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Undo of :meth:`state_dict`."""

    def running(self, names: Any, terms: Terms, progress: Progress) -> list[str]:
        """Which of these objectives take part in a step, with a loss that trains the student."""
        known = self.objectives
        active = [n for n in names if not known[n].rests and known[n].weight(progress) > 0]
        return [n for n in active if student_losses(n, terms.get(n, {}), self.objectives[n])]

    def up_to_full(self, name: str, progress: Progress) -> float:
        """Full weight of an objective over that of this step, which its gradient is scaled by:
        then a schedule keeps its shape."""
        weight = self.objectives[name].weight
        now = weight(progress)
        return (weight.value or now) / now

    def loss_of(self, name: str, terms: Terms) -> Tensor:
        """Sum of the losses of an objective that train the student; see :func:`student_losses`."""
        keys = student_losses(name, terms[name], self.objectives[name])
        return torch.stack([terms[name][key].sum() for key in keys]).sum()


def scale_at(trace: Trace, taps: Iterable[Tap]) -> float:
    """Factor for :func:`gradients_at`, without which small gradients are lost in float16."""
    tensors = (t for tap in taps for t in flatten(trace.student.raw(tap)))
    return SCALE if in_half(tensors, trace.inputs.device.type) else 1.0


def student_losses(name: str, terms: Mapping[str, Tensor], objective: Objective) -> list[str]:
    """Keys of the losses that train the student, not those that train the objective alone."""
    own = {f'kd.{name}.{key}' for key in objective.own_losses}
    return [key for key in terms if key.startswith(f'kd.{name}.loss') and key not in own]


def scale_terms(
    terms: Terms, factors: Mapping[str, float], balance: Balance, progress: Progress
) -> dict[str, dict[str, Tensor]]:
    """Multiply losses by the factor of their objective, and log factor and weight in force.

    A factor of 1 leaves the very tensors alone, as do losses that train the objective alone. Losses
    that the balance added are taken out of it: tensors of a graph cannot be copied.
    """
    added, balance.added = balance.added, {}
    result = {name: dict(named) for name, named in terms.items()}
    for name, factor in factors.items():
        objective, named = balance.objectives[name], result[name]
        keys = student_losses(name, named, objective)
        if factor != 1:
            named.update({key: named[key] * factor for key in keys})
        device = next((named[key].device for key in keys), None)
        weight = objective.weight(progress)
        named[f'kd.{name}.factor'] = torch.full((), factor, device=device)
        named[f'kd.{name}.weight'] = torch.full((), weight * factor, device=device)
        if name in added:
            named[turning(name)] = added[name]
    return result


def build_balance(entry: Any) -> Balance | None:
    """Read the config entry of the Distiller.

    Args:
        entry (float | dict | Balance | None): None for no balance; a number, or numbers by name of
            an objective, for a :class:`~mmkd.balance.GradientRatio` of this ratio; or
            ``dict(type=…)``.

    Raises:
        TypeError: something else.
        ValueError: an unknown type; whatever the balance refuses.
    """
    from mmkd.balance.gradient_ratio import GradientRatio

    if entry is None or isinstance(entry, Balance):
        return entry
    if isinstance(entry, Real) and not isinstance(entry, bool):
        return GradientRatio(ratio=check_number('', 'balance', entry, above=0))
    if not isinstance(entry, Mapping):
        raise TypeError(
            'balance must be a number such as 0.3, numbers by name of an objective, '
            f"dict(type='mmkd.GradientRatio', …) or None, found {entry!r}."
        )
    if 'type' not in entry:
        return GradientRatio(ratio=dict(entry))
    kind: Any = entry['type']
    kind = MODELS.get(kind) if isinstance(kind, str) else kind
    if not (isinstance(kind, type) and issubclass(kind, Balance)):
        known = ['AEKD', 'GradientRatio']
        asked = entry['type']
        hint = did_you_mean(str(asked).rpartition('.')[2], known)
        raise ValueError(f'balance: type={asked!r} is none of {", ".join(known)}.{hint}')
    return kind(**read_options(kind, entry))
