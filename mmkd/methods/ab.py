"""AB: hinge loss that moves pre-activations to the teacher's side of the ReLU boundary."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mmkd.families import DETECTORS, classifier
from mmkd.levels import Level
from mmkd.objective import PairObjective, Taps
from mmkd.options import check_choice, check_number
from mmkd.registry import MODELS
from mmkd.tap import Trace


def boundary_error(student: Tensor, teacher: Tensor, margin: float = 1.0) -> Tensor:
    """``max(0, m - r)^2`` where the teacher is above 0, ``max(0, m + r)^2`` elsewhere.

    Args:
        student, teacher (Tensor): values before the ReLU, (N, C, H, W).

    Returns:
        Tensor: (N, C, H, W), not reduced.
    """
    side = (teacher > 0).to(student.dtype) * 2 - 1
    return (margin - side * student).clamp(min=0).square()


@MODELS.register_module()
class AB(PairObjective):
    """Knowledge transfer via distillation of activation boundaries formed by hidden neurons.

    Heo et al., AAAI 2019, eq. 4, on values before the ReLU, through a 1x1 convolution with
    BatchNorm; the last level has weight 1, each earlier one half of the next. Compared with
    bhheo/AB_distillation, whose sums divided by N and factor 3 / 1000 are ``reduction='sum'`` with
    the default weight. Trained together with the task it is a regulariser; the published recipe has
    two phases, AB alone and then KD alone::

        mmkd train configs/chains/ab_kd_cls_cifar10.py

    Args:
        margin (float): m.
        reduction (str): ``'sum'`` over an image and mean over N, or ``'mean'`` over all elements,
            which does not depend on the size of the maps (its weight is not published).
        student, teacher, weight, teacher_name, learner, resize, level_map: see PairObjective. Tap
            the inputs of ReLUs; by default, those of all stages of two classifiers.

    Raises:
        ValueError: a margin not above 0; an unknown reduction; no taps and no classifiers.
    """

    default_weight = 3e-3
    zero_at_equality = False
    families = ('classifier',)
    named_taps = (*DETECTORS, 'segmentor')

    def __init__(
        self,
        student: Taps = None,
        teacher: Taps = None,
        weight: Any = None,
        teacher_name: str | list[str] | None = None,
        margin: float = 1.0,
        reduction: str = 'sum',
        resize: str | None = None,
        level_map: str | list | None = None,
        learner: str = 'student',
    ) -> None:
        super().__init__(
            student, teacher, weight, teacher_name, 'conv1x1_bn', resize, level_map, learner=learner
        )
        self.margin = check_number('AB', 'margin', margin, above=0)
        self.reduction = check_choice('AB', 'reduction', reduction, ('sum', 'mean'))

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        classifier.choose_taps(self, classifier.preact_taps, student, teacher)

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        super().setup(student, teacher)
        for weight in self.adapters.parameters():
            if weight.dim() == 4:
                nn.init.kaiming_normal_(weight, mode='fan_out')  # as the authors

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        pairs = self.tensor_pairs(trace)
        last = len(pairs) - 1
        losses = [self.compare(*pair) * 0.5 ** (last - k) for k, pair in enumerate(pairs)]
        wrong = [(s.detach() > 0).ne(t > 0).float().mean() for s, t in pairs]
        return {'loss': sum(losses), 'disagreement': sum(wrong) / len(wrong)}

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        error = boundary_error(student, teacher, self.margin)
        return error.mean() if self.reduction == 'mean' else error.flatten(1).sum(1).mean()
