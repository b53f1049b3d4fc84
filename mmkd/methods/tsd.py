"""TSD: a tolerant teacher, whose runner-up classes keep some of the score."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mmkd.families import logits
from mmkd.objective import Objective, Taps
from mmkd.registry import MODELS
from mmkd.tap import Trace


def top_score_difference(student: Tensor, k: int) -> Tensor:
    """``p_(1) - 1 / (k - 1) * sum_{j=2..k} p_(j)`` of each row, p sorted; (R, K) -> (R,)."""
    top = student.softmax(1).topk(k, dim=1).values
    return top[:, 0] - top[:, 1:].mean(1)


@MODELS.register_module()
class TSD(Objective):
    """Training deep neural networks in generations, with a more tolerant teacher.

    Yang et al., AAAI 2019, eq. 2. This regularises the training of the *teacher*: train it with
    ``task_weight=0.6`` and this objective (default weight 0.4) and no teacher of its own; students
    then learn from its checkpoint by KD. Ranks are the network's own, not the label's. For
    classifiers.

    Args:
        k (int | None): how many classes share; ``None`` is 5, or all where there are fewer.
        student, weight: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: k below 2 or above the number of classes; no classifier.
    """

    default_weight = 0.4
    needs_teacher = False
    zero_at_equality = False
    families = ('classifier',)

    def __init__(self, student: Taps = None, weight: Any = None, k: int | None = None) -> None:
        super().__init__(student, weight=weight)
        self.k = k

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        logits.bind_images(self, student, None)
        classes = student.head.fc.out_features
        self.k = min(5, classes) if self.k is None else self.k
        if not 2 <= self.k <= classes:
            raise ValueError(f'TSD: k must lie in [2, {classes}], the classes, found {self.k}.')

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        student = logits.rows(trace, self, 'images').student
        return {'loss': top_score_difference(student, self.k).mean()}
