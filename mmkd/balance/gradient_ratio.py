"""GradientRatio: each term's gradient is kept at a share of the task's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from logging import WARNING
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor
from torch.autograd.graph import GradientEdge

from mmkd.balance.balance import Balance, Terms, scale_at
from mmkd.balance.projection import projections
from mmkd.checks.finite import task_losses
from mmkd.functional.gather import mean_over_ranks
from mmkd.functional.gradients import gradients_at, gradients_by_place
from mmkd.names import did_you_mean, find_name
from mmkd.objective import Objective
from mmkd.options import check_flags, check_number
from mmkd.registry import MODELS
from mmkd.schedule import Progress
from mmkd.tap import Tap, Trace, parse_taps


@dataclass(frozen=True)
class Share:
    """One objective: averages of the lengths of the task's gradient and of its own, the factor,
    the iteration of the last measurement, and how many there were."""

    task: float
    term: float
    factor: float
    iteration: int
    count: int


@dataclass(frozen=True)
class Gradients:
    """By objective: the task's gradients at its places, and its own; None where there is none."""

    task: Mapping[str, list[Tensor | None]]
    terms: Mapping[str, list[Tensor | None]]


@MODELS.register_module()
class GradientRatio(Balance):
    """Keep the gradient of each term at a stated share of the task's, at the same place.

    ``factor = ratio * n_task / n_term``, with the lengths of both gradients averaged over time.
    They are taken every ``every`` steps, by one backward pass of the student's losses and one of
    each term, which end at ``at``. A term is measured at its full weight, so a schedule still fades
    it in and out, while the value of its weight no longer counts; ``task_weight`` scales both.

    Args:
        at (str | list[str] | None): taps of the student where gradients are compared, such as
            ``'backbone[-1]'``; ``None``: for each objective, its own taps.
        ratio (float | dict[str, float]): share of the task's gradient, above 0; a mapping balances
            only the objectives that it names.
        every (int): steps from one measurement to the next; an objective that takes part for the
            first time is measured at once, then after 1, 2, 4, … steps up to ``every``.
        beta (float): how much of the average stays at a measurement, in [0, 1).
        clip (tuple[float, float]): bounds of the factor.
        project (bool): in every step, take away what in a term's gradient opposes the task's, see
            :func:`~mmkd.balance.projection.projections`.

    Raises:
        ValueError: an option out of range; an unknown objective; a tap where the task or a term has
            no gradient, in the first measured step.
    """

    def __init__(
        self,
        at: Any = None,
        ratio: float | Mapping[str, float] = 0.5,
        every: int = 50,
        beta: float = 0.9,
        clip: tuple[float, float] = (1e-2, 1e2),
        project: bool = False,
    ) -> None:
        owner = 'GradientRatio'
        check_flags(GradientRatio, {'project': project})
        self.project = project
        self.taps = parse_taps(at)
        self.asked = dict(ratio) if isinstance(ratio, Mapping) else ratio
        shares = self.asked if isinstance(self.asked, dict) else {'': self.asked}
        if not shares:
            raise ValueError(
                'GradientRatio: ratio={} names no objective. Name some, ratio=dict(kd=0.3), give a '
                'number for all, or leave balance out.'
            )
        for name, share in shares.items():
            check_number(owner, f'ratio {name}'.strip(), share, above=0)
        self.every = check_number(owner, 'every', every, 1, whole=True)
        self.beta = check_number(owner, 'beta', beta, 0, below=1)
        self.clip = _check_bounds(clip)
        self.shares: dict[str, Share] = {}
        self.silent: set[str] = set()
        #: terms that were projected in the last step
        self.projected: float | Tensor = 0.0

    def bind(self, objectives: Mapping[str, Objective]) -> None:
        super().bind(objectives)
        objectives = self.objectives
        if not isinstance(self.asked, dict):
            self.ratios = {n: self.asked for n, o in objectives.items() if not o.weight.is_zero}
            return
        self.ratios = {}
        for name, share in self.asked.items():
            found = find_name(name, objectives)
            if found is None:
                raise ValueError(
                    f'balance: there is no objective {name!r}; there are {", ".join(objectives)}.'
                    f'{did_you_mean(name, objectives)}'
                )
            self.ratios[found] = share

    def __call__(
        self, terms: Terms, task: Mapping[str, Any], trace: Trace, progress: Progress
    ) -> dict[str, float]:
        running = self.running(self.ratios, terms, progress)
        due = [name for name in running if self._is_due(name, progress.iteration)]
        compared = running if self.project else due
        found, device, self.projected = None, trace.inputs.device, 0.0
        if compared and torch.is_grad_enabled():
            found = self._gradients(compared, terms, task, trace)
        if due and found:
            self._measure(due, found, device, progress)
        factors = {name: self._factor(name) for name in running}
        if self.project and found:
            tensors = {name: self._tensors(name, trace) for name in running}
            self.added, self.projected = projections(
                found.terms, found.task, tensors, factors, device
            )
        return factors

    def logged(self) -> dict[str, float | Tensor]:
        return {'balance.projected': self.projected} if self.project else {}

    def _factor(self, name: str) -> float:
        return self.shares[name].factor if name in self.shares else 1.0

    def _is_due(self, name: str, iteration: int) -> bool:
        share = self.shares.get(name)
        if share is None:
            return True
        # The first gradients of an untrained student are not typical: the gaps begin small.
        gap = min(self.every, 2 ** min(share.count - 1, 30))
        return iteration - share.iteration >= gap

    def _gradients(
        self, names: list[str], terms: Terms, task: Mapping[str, Any], trace: Trace
    ) -> Gradients:
        """Of the task, by one pass, and of each term, by one."""
        places = {name: self._places(name, trace) for name in names}
        scale = scale_at(trace, [tap for name in names for tap in self._taps_of(name)])
        own = _own_loss(task)
        wanted = {} if own is None else gradients_by_place(own, places.values(), scale)
        found = {n: gradients_at(self.loss_of(n, terms), places[n], scale) for n in names}
        return Gradients({n: [wanted.get(e) for e in places[n]] for n in names}, found)

    def _measure(
        self, names: list[str], found: Gradients, device: torch.device, progress: Progress
    ) -> None:
        """Compare gradients at the taps, and renew averages and factors."""
        rows = [[*_measured(found.task[name]), *_measured(found.terms[name])] for name in names]
        flat = torch.stack([torch.stack([x.to(device) for x in row]) for row in rows])
        for name, row in zip(names, mean_over_ranks(flat).tolist(), strict=True):
            self._renew(name, *row, progress=progress)

    def _renew(
        self,
        name: str,
        task: float,
        task_reached: float,
        term: float,
        term_reached: float,
        progress: Progress,
    ) -> None:
        """Take in the squared lengths of one objective and the task, and whether there were any."""
        before = self.shares.get(name)
        if before is None:
            self._check_reached(name, task_reached > 0, term_reached > 0)
        if not (math.isfinite(task) and math.isfinite(term)) or not (task and term):
            self._say_once(name, task**0.5, term**0.5, progress)
            return
        task, term = task**0.5, self.up_to_full(name, progress) * term**0.5
        if before is not None:
            task = self.beta * before.task + (1 - self.beta) * task
            term = self.beta * before.term + (1 - self.beta) * term
        count = 1 if before is None else before.count + 1
        factor = min(max(self.ratios[name] * task / term, self.clip[0]), self.clip[1])
        self.shares[name] = Share(task, term, factor, progress.iteration, count)
        if before is None:
            bound = ', a bound of clip' if factor in self.clip else ''
            text = (
                f"balance: the gradient of objective '{name}' at full weight is "
                f"{term / task:.3g} times the task's; its factor is {factor:.4g}{bound}"
            )
            print_log(text, logger='current')

    def _say_once(self, name: str, task: float, term: float, progress: Progress) -> None:
        if name in self.silent:
            return
        self.silent.add(name)
        text = (
            f"balance: no gradient to compare for objective '{name}' in step {progress.iteration} "
            f'(task {task:.3g}, term {term:.3g}): its factor stays {self._factor(name):.4g}'
        )
        print_log(text, logger='current', level=WARNING)

    def _check_reached(self, name: str, task: bool, term: bool) -> None:
        where = ', '.join(map(str, self._taps_of(name)))
        if not task:
            raise ValueError(
                f"balance: the student's own losses have no gradient at {where}, where objective "
                f"'{name}' is compared with them. Name a place that both reach, "
                "at='backbone[-1]', or leave the objective out of ratio."
            )
        if not term and not self.objectives[name].needs_ground_truth:
            raise ValueError(
                f"balance: objective '{name}' has no gradient at {where}. Name a place between its "
                "taps and the student's input, at='backbone[-1]', or leave it out of ratio."
            )

    def _taps_of(self, name: str) -> tuple[Tap, ...]:
        return self.taps or self.objectives[name].student_taps

    def _places(self, name: str, trace: Trace) -> list[GradientEdge]:
        edges = [edge for tap in self._taps_of(name) for edge in trace.student.places(tap)]
        return list(dict.fromkeys(edges))

    def _tensors(self, name: str, trace: Trace) -> list[Tensor]:
        """The tensors recorded at :meth:`_places`, in the same order."""
        found = [x for tap in self._taps_of(name) for x in trace.student.recorded(tap)]
        edges = [edge for tap in self._taps_of(name) for edge in trace.student.places(tap)]
        pairs = zip(edges, [x for x in found if x.requires_grad], strict=True)
        return list(dict(pairs).values())

    def describe(self) -> list[str]:
        where = ', '.join(map(str, self.taps)) or 'the taps of each objective'
        shares = ', '.join(f'{name} {share:g}' for name, share in self.ratios.items())
        passes = 1 + len(self.ratios)
        return [
            f"GradientRatio, shares of the task's gradient at {where}: {shares or 'none'}",
            f'one step in {self.every} has {passes} more backward passes, which end there; factors '
            f'from {self.clip[0]:g} to {self.clip[1]:g}',
            *['terms that oppose the task are projected, by such passes in every step']
            * self.project,
        ]

    def state_dict(self) -> dict[str, Any]:
        shares = {name: asdict(share) for name, share in self.shares.items()}
        return {'shares': shares, 'silent': sorted(self.silent)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        shares = state['shares'].items()
        self.shares = {name: Share(**share) for name, share in shares if name in self.ratios}
        self.silent = set(state['silent'])


def _own_loss(task: Mapping[str, Any]) -> Tensor | None:
    """Sum of the student's own losses, if there are any."""
    own = [value.mean() for _, value in task_losses(task)]
    return torch.stack(own).sum() if own else None


def _check_bounds(clip: Any) -> tuple[float, float]:
    if not isinstance(clip, (list, tuple)) or len(clip) != 2:
        raise ValueError(
            f'GradientRatio: clip must be two numbers, the lowest and the highest factor, found '
            f'{clip!r}.'
        )
    low = check_number('GradientRatio', 'the lower bound of clip', clip[0], above=0)
    return low, check_number('GradientRatio', 'the upper bound of clip', clip[1], low)


def _measured(found: list[Tensor | None]) -> tuple[Tensor, Tensor]:
    """Squared length of gradients, and whether there is any."""
    present = [g for g in found if g is not None]
    if not present:
        return torch.zeros(()), torch.zeros(())
    return torch.stack([g.norm() for g in present]).square().sum(), torch.ones(())
