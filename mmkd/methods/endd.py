"""EnDD: likelihood of an ensemble's probabilities under the student's Dirichlet distribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.functional.dirichlet import concentrations, negative_log_likelihood, uncertainties
from mmkd.levels import Level
from mmkd.map_sizes import RESIZE, equal_size
from mmkd.objective import Objective, Taps
from mmkd.options import check_choice, check_number, check_temperature
from mmkd.registry import MODELS
from mmkd.rows import logits
from mmkd.schedule import Schedule
from mmkd.tap import Trace
from mmkd.view import View

#: the temperature without ``tau``: constant for a third of the run, then linear for another third
ANNEALED = dict(value=10.0, start=1 / 3, decay='linear', end_value=1.0, stop=2 / 3)


def mean_log_probability(members: Sequence[Tensor], tau: float, smoothing: float) -> Tensor:
    """``1/M sum_m log pi_m`` of softened and smoothed probabilities, (..., K).

    ``pi = (1 - smoothing) (softmax(z / tau) - 1/K) + 1/K``, which is never 0.

    Args:
        members (Sequence[Tensor]): logits of each member, (..., K).
    """
    share = smoothing / members[0].shape[-1]
    logs = [((1 - smoothing) * (z.double() / tau).softmax(-1) + share).log() for z in members]
    return torch.stack(logs).mean(0)


@MODELS.register_module()
class EnDD(Objective):
    """Ensemble distribution distillation.

    Malinin et al., ICLR 2020, eqs. 8-10: the student's logits are ``alpha = exp(z / tau)`` of a
    Dirichlet distribution, and the loss ``-tau^2 / M sum_m log Dir(pi_m; alpha)`` of the members'
    probabilities, softened by the same tau. The student then predicts ``alpha / alpha_0``, its
    softmax, and says why it is uncertain: :class:`~mmkd.evaluation.Calibration` with
    ``dirichlet=True``. It is meant to train alone, with ``task_weight=None``. Compared with
    lennelov/endd-reproduce, which smooths by 1e-3; the paper by 1e-4.

    Without taps: a classifier's ``head.fc``, or a segmentor's logits, pixel by pixel.

    Args:
        teacher_name (list[str]): the members, at least two.
        tau (float | None): temperature; ``None`` is 10 for a third of the run, falls to 1 in the
            next and stays there.
        smoothing (float): share of the uniform distribution in the members'; identical members
            without any have no optimum.
        most (float): largest absolute z / tau; beyond it there is no gradient.
        resize (str | None): for pixels, brings maps of unequal size to one, ``'student'``,
            ``'teacher'`` or ``'label'``.
        student, teacher, weight: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: fewer than two members; options out of range; no softmax class logits of one
            kind, or in unequal classes.
    """

    many_teachers = True
    zero_at_equality = False
    rank_invariant = True
    scheduled = ('tau',)
    over_scales = True
    families = ('segmentor', 'classifier')

    def __init__(
        self,
        *taps: Taps,
        tau: float | None = None,
        smoothing: float = 1e-3,
        most: float = 15.0,
        resize: str | None = None,
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        if tau is None:
            self.schedules = {'tau': Schedule(**ANNEALED, owner='EnDD: tau')}  # type: ignore[arg-type]
        self.tau = check_temperature('EnDD', ANNEALED['value'] if tau is None else tau)
        self.smoothing = check_number('EnDD', 'smoothing', smoothing, above=0, below=1)
        self.most = check_number('EnDD', 'most', most, above=0)
        self.resize = check_choice('EnDD', 'resize', resize, RESIZE)
        self.kind = ''
        if self.teacher_names:
            _check_members(len(self.teacher_names))

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        self.kind = logits.check_kinds('EnDD', student, teacher, ('pixels', 'images'))
        logits.bind_rows(self, student, teacher)

    def check_dataset(self, dataset: Any) -> None:
        _check_members(len(self.teacher_names))

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        logits.check_strides(self, self.kind, student, teacher)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        own, members = self._rows(trace)
        alpha = concentrations(own, self.tau, self.most)
        mean_log = mean_log_probability(members, self.tau, self.smoothing)
        loss = negative_log_likelihood(alpha, mean_log).mean() * self.tau**2
        spread = uncertainties(alpha.detach())['knowledge'].mean()
        return {'loss': loss.to(own.dtype), 'knowledge': spread.to(own.dtype)}

    def _rows(self, trace: Trace) -> tuple[Tensor, list[Tensor]]:
        """Logits (..., K) of the student and of each member, of equal size."""
        own = trace.student.maps(self.student_taps[0])[0]
        align = bool(getattr(trace.student.model, 'align_corners', False))
        pairs = [
            equal_size(
                'EnDD',
                own,
                side.maps(self.teacher_taps[0])[0].detach(),
                replace(trace, teachers={name: side}),
                self.resize,
                align,
            )
            for name, side in trace.teachers.items()
        ]
        own, members = pairs[0][0], [member for _, member in pairs]
        if len(sizes := {tuple(z.shape) for pair in pairs for z in pair}) > 1:
            raise ValueError(
                f'EnDD: logits of student and members differ in size, {sorted(sizes)}. Set '
                "resize='student' or resize='label'."
            )
        if self.kind == 'pixels':
            own, *members = (x.permute(0, 2, 3, 1) for x in (own, *members))
        return own, members

    def views(self, trace: Trace) -> Sequence[View]:
        """Total and knowledge uncertainty of pixels."""
        if self.kind != 'pixels':
            return []
        found = uncertainties(concentrations(self._rows(trace)[0], self.tau, self.most))
        return [
            View(f'{name} uncertainty', found[name].float(), side='student', unit='nats')
            for name in ('total', 'knowledge')
        ]


def _check_members(count: int) -> None:
    if count < 2:
        raise ValueError(
            f'EnDD learns how the members of an ensemble differ, but teacher_name names {count}. '
            "Name at least two, teacher_name=['a', 'b'], or use KD."
        )
