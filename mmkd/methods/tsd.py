"""TSD: top score difference, a regulariser of teachers that keeps secondary classes probable."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mmkd.families.comparable import Misfit, named
from mmkd.objective import Objective, Taps
from mmkd.options import check_number
from mmkd.registry import MODELS
from mmkd.rows import logits
from mmkd.tap import Trace


def top_score_difference(student: Tensor, k: int, classes: int | None = None) -> Tensor:
    """``p_(1) - 1 / (k - 1) * sum_{j=2..k} p_(j)`` of each row, p sorted; (R, K) -> (R,).

    Args:
        classes (int | None): only the first so many take part.
    """
    top = student.softmax(1)[:, :classes].topk(k, dim=1).values
    return top[:, 0] - top[:, 1:].mean(1)


@MODELS.register_module()
class TSD(Objective):
    """Training deep neural networks in generations, with a more tolerant teacher.

    Yang et al., AAAI 2019, eq. 2. This regularises the training of the *teacher*: train it with
    ``task_weight=0.6`` and this objective (default weight 0.4) and no teacher of its own; students
    then learn from its checkpoint by KD (``configs/chains/tsd_cls_cifar10.py``). Classes are ranked
    by the network's scores, whatever the label. On the images of a classifier, or those RoIs
    sampled by a two-stage detector that are objects; the background has no rank.

    Args:
        k (int | None): number of top classes that are compared; ``None`` is 5, or all where there
            are fewer.
        student, weight, learner: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: k below 2 or above the number of classes; neither a
            classifier nor a two-stage detector.
    """

    default_weight = 0.4
    needs_teacher = False
    zero_at_equality = False
    families = ('two_stage', 'instance', 'classifier')

    def __init__(
        self,
        student: Taps = None,
        weight: Any = None,
        k: int | None = None,
        learner: str = 'student',
    ) -> None:
        super().__init__(student, weight=weight, learner=learner)
        self.k = check_number('TSD', 'k', k, 2, whole=True, optional=True)
        self.classes, self.kind = 0, ''

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        self.kind = logits.bind_rows(self, student, None)
        if self.kind == 'pixels':
            raise Misfit(
                f'TSD regularises classifiers and box heads, but {named(student)} '
                'classifies pixels.'
            )
        self.classes = logits.class_count(student, self.kind) - (self.kind == 'rois')
        if self.classes < 2:
            raise ValueError(
                'TSD compares the best class with those that follow, but the student tells one '
                'class from the background; LSR and ConfidencePenalty regularise two outputs.'
            )
        self.k = min(5, self.classes) if self.k is None else self.k
        if not 2 <= self.k <= self.classes:
            raise ValueError(
                f'TSD: k must lie in [2, {self.classes}], the classes, found {self.k}.'
            )

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        student = logits.object_rows(trace, self, self.kind).student
        if not len(student):
            return {'loss': student.sum() * 0.0}
        return {'loss': top_score_difference(student, self.k, self.classes).mean()}
