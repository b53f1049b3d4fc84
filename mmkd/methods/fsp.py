"""FSP: Gram matrices between the feature maps of consecutive layers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.adapters.convolution import consecutive_adapters
from mmkd.families import DETECTORS, classifier
from mmkd.levels import Level
from mmkd.objective import Objective, Taps
from mmkd.options import check_choice
from mmkd.registry import MODELS
from mmkd.tap import Trace


def flow(first: Tensor, second: Tensor, pool: str = 'max') -> Tensor:
    """``1 / (H W) * sum_hw F1_hw F2_hw^T`` of each image, (N, C1, H, W) and (N, C2, H, W).

    The larger map is pooled to the size of the smaller one.

    Returns:
        Tensor: (N, C1, C2).
    """
    size = tuple(min(a, b) for a, b in zip(first.shape[2:], second.shape[2:], strict=True))
    resize = F.adaptive_max_pool2d if pool == 'max' else F.adaptive_avg_pool2d
    a, b = (x if x.shape[2:] == size else resize(x, size) for x in (first, second))
    return torch.bmm(a.flatten(2), b.flatten(2).transpose(1, 2)) / (size[0] * size[1])


def flow_error(student: Tensor, teacher: Tensor, reduction: str = 'mean') -> Tensor:
    """Of two (N, C1, C2): mean square, or ``'frobenius'``: squared Frobenius norm, mean over N."""
    error = (student - teacher).square()
    return error.mean() if reduction == 'mean' else error.sum((1, 2)).mean()


@MODELS.register_module()
class FSP(Objective):
    """A gift from knowledge distillation: the flow of solution procedure.

    Yim et al., CVPR 2017, eqs. 1-3, over consecutive taps. Without taps: the input of the first
    stage of two classifiers, and all stages. The published recipe has two phases, FSP alone
    (``task_weight=None``) and then the task alone; trained together with the task it is a
    regulariser::

        mmkd train configs/chains/fsp_cls_cifar10.py

    RepDistiller's first phase has the weight 1 and ignores its option, 50 by default. The defaults
    mix the paper's max-pooling with RepDistiller's mean and factor of 50: there is no published
    result for that mixture. ``pool='avg', weight=1`` is RepDistiller's first phase, and
    ``reduction='frobenius'`` the paper's loss.

    Args:
        pool (str): ``'max'`` (paper) or ``'avg'`` (RepDistiller), where two maps differ in size.
        reduction (str): ``'mean'`` over N * C1 * C2 (RepDistiller) or ``'frobenius'``,
            which is C1 * C2 times that (paper).
        adapt (str | None): ``'auto'``: a 1x1 convolution on the student's maps where widths differ;
            ``None``: unequal widths are refused.
        student, teacher, weight, teacher_name: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: options out of range; fewer than two maps, or unequally many; unequal widths.
    """

    default_weight = 50.0
    over_scales = True
    families = ('classifier',)
    named_taps = (*DETECTORS, 'segmentor')

    def __init__(
        self,
        *taps: Taps,
        pool: str = 'max',
        reduction: str = 'mean',
        adapt: str | None = 'auto',
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        self.pool = check_choice('FSP', 'pool', pool, ('max', 'avg'))
        self.reduction = check_choice('FSP', 'reduction', reduction, ('mean', 'frobenius'))
        self.adapt = check_choice('FSP', 'adapt', adapt, ('auto', None))
        self.adapters = nn.ModuleList()

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        classifier.choose_taps(self, _stem_and_stages, student, teacher)

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        self.adapters.extend(consecutive_adapters('FSP', student, teacher, self.adapt))

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        own = [t for tap in self.student_taps for t in trace.student[tap]]
        own = [adapter(x) for adapter, x in zip(self.adapters, own, strict=True)]
        wanted = [t.detach() for tap in self.teacher_taps for t in trace.teacher[tap]]
        flows = [[flow(a, b, self.pool) for a, b in pairwise(maps)] for maps in (own, wanted)]
        losses = [flow_error(s, t, self.reduction) for s, t in zip(*flows, strict=True)]
        return {'loss': sum(losses)}


def _stem_and_stages(model: nn.Module) -> list[str]:
    return [classifier.stem_tap(model), *classifier.stage_taps(model)]
