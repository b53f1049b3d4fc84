"""ConfidencePenalty: entropy regularisation of class probabilities; no teacher."""

from __future__ import annotations

from math import log
from typing import Any

from torch import Tensor, nn

from mmkd.objective import Objective, Taps
from mmkd.options import check_number
from mmkd.registry import MODELS
from mmkd.rows import logits
from mmkd.tap import Trace


def entropy(student: Tensor) -> Tensor:
    """``H = - sum_k p_k log p_k`` of each row of logits, (R, K) -> (R,), in nats."""
    log_p = student.log_softmax(1)
    return -(log_p.exp() * log_p).sum(1)


@MODELS.register_module()
class ConfidencePenalty(Objective):
    """Regularizing neural networks by penalizing confident output distributions.

    Pereyra et al., 2017, eq. 1: ``CE - beta H(p)``. The loss is ``log K - H``, the divergence from
    uniform classes, so that it is 0 for uniform predictions and never negative; the constant
    ``log K`` has no gradient. The weight is beta. On the images of a classifier, a segmentor's
    labelled pixels, or those RoIs sampled by a two-stage detector that are objects.

    Args:
        threshold (float | None): the paper's hinge, in nats: entropy above it is not rewarded,
            ``max(0, threshold - H)``.
        student, weight, learner: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: a threshold below 0; a model without softmax class logits.
    """

    default_weight = 0.1
    needs_teacher = False
    zero_at_equality = False
    families = logits.KINDS

    def __init__(
        self,
        student: Taps = None,
        weight: Any = None,
        threshold: float | None = None,
        learner: str = 'student',
    ) -> None:
        super().__init__(student, weight=weight, learner=learner)
        owner = 'ConfidencePenalty'
        self.threshold = check_number(owner, 'threshold', threshold, above=0, optional=True)
        self.kind = ''

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        self.kind = logits.bind_rows(self, student, None)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        rows = logits.object_rows(trace, self, self.kind)
        if not len(rows.student):
            return {'loss': rows.student.sum() * 0.0}
        top = log(rows.student.shape[1]) if self.threshold is None else self.threshold
        return {'loss': (top - entropy(rows.student)).clamp(min=0).mean()}
