"""ESKD: KD with early stopping: the KL divergence is switched off before training ends."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mmkd.functional.logit_distances import soft_kl
from mmkd.levels import Level
from mmkd.objective import RESIZE, Objective, Taps
from mmkd.options import check_choice, check_temperature
from mmkd.registry import MODELS
from mmkd.rows import logits
from mmkd.schedule import Schedule
from mmkd.tap import Trace


@MODELS.register_module()
class ESKD(Objective):
    """On the efficacy of knowledge distillation: KD that ends early.

    Cho and Hariharan, ICCV 2019: Hinton's loss until ``stop``, the task alone afterwards; the
    teacher is not run any more then. Any other objective ends early in the same way, with
    ``weight=dict(stop=0.6)``. The paper's other remedy, a teacher that itself stopped early, is a
    teacher checkpoint of an earlier epoch: ``configs/chains/eskd_cls_cifar10.py`` has both.

    Args:
        weight (float): before the stop.
        stop (int | float): iteration, or fraction of the run, from which on the weight is 0. The
            paper tunes it; 0.625 is the first drop of the learning rate in the usual 240 epochs.
        ramp (str | None): ``None`` stops at once; ``'linear'`` or ``'cosine'`` fade out until then.
        tau (float): temperature.
        resize (str | None): for pixels, see :class:`~mmkd.objective.PairObjective`.
        student, teacher, teacher_name: see :class:`~mmkd.objective.Objective`; no taps on two-stage
            detectors.

    Raises:
        ValueError: options out of range; models without comparable class logits.
    """

    scheduled = ('tau',)
    over_scales = True
    families = logits.KINDS

    def __init__(
        self,
        *taps: Taps,
        stop: float = 0.625,
        ramp: str | None = None,
        tau: float = 4.0,
        resize: str | None = None,
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        self.resize = check_choice('ESKD', 'resize', resize, RESIZE)
        ramp = check_choice('ESKD', 'ramp', ramp, (None, 'linear', 'cosine'))
        if self.weight != Schedule.of(self.weight.value):
            raise ValueError(
                'ESKD has its own schedule: give weight as a number, and stop and ramp.'
            )
        self.weight = Schedule(self.weight.value, stop=stop, decay=ramp)
        self.tau = check_temperature('ESKD', tau)
        self.kind = ''

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        self.kind = logits.bind_rows(self, student, teacher)

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        logits.check_strides(self, self.kind, student, teacher)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        rows = logits.rows(trace, self, self.kind)
        if not len(rows.student):
            return {'loss': rows.student.sum() * 0.0}
        return {'loss': soft_kl(rows.student, rows.teacher, self.tau).mean()}
