"""LSR: label smoothing, the cross entropy to the uniform distribution; no teacher."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mmkd.objective import Objective, Taps
from mmkd.registry import MODELS
from mmkd.rows import logits
from mmkd.tap import Trace


def cross_entropy_to_uniform(student: Tensor) -> Tensor:
    """``- 1 / (R K) * sum_rk log p_rk`` of logits (R, K)."""
    return -student.log_softmax(1).mean()


@MODELS.register_module()
class LSR(Objective):
    """Label smoothing as a teacher that knows nothing: the cross entropy to uniform classes.

    Szegedy et al., CVPR 2016, section 7. With ``task_weight=0.9`` and the default weight of 0.1
    the sum is ``(1 - eps) CE + eps / K * sum_k -log p_k``, PyTorch's ``label_smoothing=0.1``; some
    codes divide by K - 1. A baseline beside methods with a teacher, on the images of a classifier,
    a segmentor's labelled pixels, or those RoIs sampled by a two-stage detector that are objects.

    Args:
        student, weight, learner: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: a model without softmax class logits.
    """

    default_weight = 0.1
    needs_teacher = False
    zero_at_equality = False
    families = logits.KINDS

    def __init__(
        self,
        student: Taps = None,
        weight: Any = None,
        learner: str = 'student',
    ) -> None:
        super().__init__(student, weight=weight, learner=learner)
        self.kind = ''

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        self.kind = logits.bind_rows(self, student, None)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        rows = logits.object_rows(trace, self, self.kind)
        if not len(rows.student):
            return {'loss': rows.student.sum() * 0.0}
        return {'loss': cross_entropy_to_uniform(rows.student)}
