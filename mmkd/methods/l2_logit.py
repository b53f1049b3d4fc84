"""L2Logit: mean squared error of logits."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from mmkd.functional.logit_distances import half_squared_error
from mmkd.levels import Level
from mmkd.objective import RESIZE, Objective, Taps
from mmkd.options import check_choice
from mmkd.registry import MODELS
from mmkd.rows import logits
from mmkd.tap import Trace


@MODELS.register_module()
class L2Logit(Objective):
    """Do deep nets really need to be deep? Squared error of logits before the softmax.

    Ba and Caruana, NeurIPS 2014, eq. 1. Unlike KD it is not invariant to a constant added to all
    logits; with centred rows it is KD's limit at high temperature. On a two-stage detector's
    sampled RoIs, a segmentor's labelled pixels or images, R rows of K classes.

    The paper standardises targets by the mean and deviation that each logit has over the training
    set. Here the student keeps the teacher's scale, so that its own classes stay comparable, and
    the difference is divided by the deviation, which is the same loss. The paper's linear layer
    behind the input is part of a student's architecture, not of the loss.

    Args:
        variant (str): ``'code'`` is the mean over R * K (Knowledge-Distillation-Zoo), to which the
            default weight of 0.1 belongs; ``'paper'`` is K / 2 times that.
        standardise (bool): divide each logit's difference by the standard deviation of the
            teacher's over all rows of training seen so far.
        resize (str | None): for pixels, see :class:`~mmkd.objective.PairObjective`.
        student, teacher, weight, teacher_name: see :class:`~mmkd.objective.Objective`; no taps on
            two-stage detectors.

    Raises:
        ValueError: an unknown variant; models without comparable class logits.
    """

    default_weight = 0.1
    over_scales = True
    families = logits.KINDS

    def __init__(
        self,
        *taps: Taps,
        variant: str = 'code',
        standardise: bool = False,
        resize: str | None = None,
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        self.resize = check_choice('L2Logit', 'resize', resize, RESIZE)
        self.variant = check_choice('L2Logit', 'variant', variant, ('code', 'paper'))
        self.standardise = standardise
        self.kind = ''

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        self.kind = logits.bind_rows(self, student, teacher)
        if self.standardise:
            count = logits.class_count(student, self.kind)
            #: rows, sums and sums of squares of the teacher's logits
            self.register_buffer('moments', torch.zeros(3, count, dtype=torch.float64))

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        logits.check_strides(self, self.kind, student, teacher)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        student, teacher, _ = logits.rows(trace, self, self.kind)
        if self.standardise:  # with no rows, too: other ranks wait for the sums of this one
            deviation = self._deviation(teacher)
            student, teacher = student / deviation, teacher / deviation
        if not len(student):
            return {'loss': student.sum() * 0.0}
        loss = half_squared_error(student, teacher)
        return {'loss': loss if self.variant == 'paper' else loss * 2 / student.shape[1]}

    @torch.no_grad()
    def _deviation(self, logits: Tensor) -> Tensor:
        """Standard deviation of each logit (K,) over all rows so far, those of all ranks."""
        wide = logits.double()
        seen = torch.stack((torch.ones_like(wide).sum(0), wide.sum(0), wide.square().sum(0)))
        all_reduce(seen)
        moments = self.moments + seen
        if self.training:
            self.moments.copy_(moments)
        mean, square = moments[1:] / moments[0]
        deviation = (square - mean.square()).clamp(min=0).sqrt()
        # A logit that has not varied yet has no scale of its own.
        return torch.where(deviation > 1e-6, deviation, 1.0).to(logits.dtype)
