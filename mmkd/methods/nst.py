"""NST: maximum mean discrepancy (MMD) between the activation maps of channels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.families import DETECTORS, classifier
from mmkd.functional.pooling import pool_to_smaller
from mmkd.map_sizes import Map, whole
from mmkd.objective import PairObjective, Taps
from mmkd.options import check_choice
from mmkd.registry import MODELS
from mmkd.tap import Trace

KERNELS = ('linear', 'poly', 'gaussian')


def neuron_mmd(student: Tensor, teacher: Tensor, kernel: str = 'poly') -> Tensor:
    """Squared maximum mean discrepancy between channels as points of R^(H W), mean over N.

    Channels are scaled to length 1; zero ones stay 0. Kernels: ``x . y``; ``(x . y)^2``;
    ``exp(-|x - y|^2 / (2 sigma^2))`` with sigma^2 the mean of ``|s - t|^2`` over all pairs of a
    student's and a teacher's channel, detached.

    Args:
        student, teacher (Tensor): (N, C_s, H, W) and (N, C_t, H, W).
    """
    s, t = (F.normalize(x.flatten(2), dim=2) for x in (student, teacher))
    if kernel == 'linear':
        return (s.mean(1) - t.mean(1)).square().sum(1).mean()
    if kernel == 'poly' and s.shape[2] < max(s.shape[1], t.shape[1]):
        # mean (x . y)^2 over channels is a product of Gram matrices over places.
        grams = [x.transpose(1, 2) @ x / x.shape[1] for x in (s, t)]
        return (grams[0] - grams[1]).square().sum((1, 2)).mean()
    products = [torch.bmm(a, b.transpose(1, 2)) for a, b in ((s, s), (t, t), (s, t))]
    if kernel == 'poly':
        own, wanted, cross = (x.square().mean((1, 2)) for x in products)
    else:
        own, wanted, cross = _gaussian(s, t, products)
    return (own + wanted - 2 * cross).mean()


def _gaussian(s: Tensor, t: Tensor, products: list[Tensor]) -> list[Tensor]:
    """Means of the Gaussian kernel over the pairs of each image, (N,) each."""
    lengths = [x.square().sum(2) for x in (s, t)]
    pairs = ((0, 0), (1, 1), (0, 1))
    squares = [
        (lengths[i][:, :, None] + lengths[j][:, None] - 2 * product).clamp(min=0)
        for (i, j), product in zip(pairs, products, strict=True)
    ]
    width = squares[2].detach().mean().clamp(min=1e-12)
    return [(-square / (2 * width)).exp().mean((1, 2)) for square in squares]


@MODELS.register_module()
class NST(PairObjective):
    """Like what you like: knowledge distill via neuron selectivity transfer.

    Huang and Wang, 2017, eqs. 4-9; widths may differ. Without taps: all stages of two classifiers
    after their ReLU (RepDistiller); TuSimple's code takes the last one before it, which is
    ``student='backbone.…'``. With taps maps of any model; beyond 16 x 16 cells pool them first.

    Args:
        kernel (str): ``'poly'`` (degree 2 without constant), ``'linear'`` or ``'gaussian'``.
        student, teacher, weight, teacher_name, learner, level_map: see PairObjective. Of unequal
            maps the larger is average-pooled.

    Raises:
        ValueError: an unknown kernel; no taps and no classifiers.
    """

    default_weight = 50.0
    rank_invariant = True
    adapts_width = False
    families = ('classifier',)
    named_taps = (*DETECTORS, 'segmentor')

    def __init__(
        self,
        student: Taps = None,
        teacher: Taps = None,
        weight: Any = None,
        teacher_name: str | list[str] | None = None,
        kernel: str = 'poly',
        level_map: str | list | None = None,
        learner: str = 'student',
    ) -> None:
        super().__init__(
            student, teacher, weight, teacher_name, None, 'teacher', level_map, learner=learner
        )
        self.kernel = check_choice('NST', 'kernel', kernel, KERNELS)

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        classifier.choose_taps(self, classifier.stage_taps, student, teacher)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        return {'loss': sum(self.compare(s, t) for s, t in self.maps(trace))}

    def _same_size(self, student: Map, teacher: Map, trace: Trace) -> tuple[Tensor, Tensor]:
        return pool_to_smaller(whole(student), whole(teacher))

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        return neuron_mmd(student, teacher, self.kernel)
