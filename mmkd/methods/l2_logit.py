"""L2Logit: regress the teacher's logits."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mmkd.families import logits
from mmkd.functional import check_choice
from mmkd.objective import Objective, Taps
from mmkd.registry import MODELS
from mmkd.tap import Trace


def half_squared_error(student: Tensor, teacher: Tensor) -> Tensor:
    """``1 / (2 R) * sum_r ||z_s - z_t||^2`` of logits (R, K)."""
    return (student - teacher).square().sum(1).mean() / 2


@MODELS.register_module()
class L2Logit(Objective):
    """Do deep nets really need to be deep? Squared error of logits before the softmax.

    Ba and Caruana, NeurIPS 2014, eq. 1. Not invariant to a constant added to all logits, unlike
    KD, whose limit at high temperature this is once rows are centred. On a two-stage detector's
    sampled RoIs, a segmentor's labelled pixels or images, R rows of K classes.

    Args:
        variant (str): ``'mse'`` is the mean over R * K, to which the default weight of 0.1 belongs
            (Knowledge-Distillation-Zoo); ``'paper'`` is K / 2 times that.
        student, teacher, weight, teacher_name: see :class:`~mmkd.objective.Objective`; no taps on
            two-stage detectors.

    Raises:
        ValueError: an unknown variant; models without comparable class logits.
    """

    default_weight = 0.1
    families = logits.KINDS

    def __init__(
        self,
        student: Taps = None,
        teacher: Taps = None,
        weight: Any = None,
        teacher_name: str | None = None,
        variant: str = 'mse',
    ) -> None:
        super().__init__(student, teacher, weight, teacher_name)
        self.variant = check_choice('L2Logit', 'variant', variant, ('mse', 'paper'))
        self.kind = ''

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        self.kind = logits.bind_rows(self, student, teacher)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        rows = logits.rows(trace, self, self.kind)
        if not len(rows.student):
            return {'loss': rows.student.sum() * 0.0}
        loss = half_squared_error(rows.student, rows.teacher)
        return {'loss': loss if self.variant == 'paper' else loss * 2 / rows.student.shape[1]}
