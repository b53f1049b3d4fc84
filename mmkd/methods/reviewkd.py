"""ReviewKD: deep and shallow features fused by attention, compared at several scales (HCL)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.families import DETECTORS, classifier
from mmkd.levels import Level, pair_levels
from mmkd.objective import Objective, Taps
from mmkd.options import check_number, options_of
from mmkd.registry import MODELS
from mmkd.tap import Trace


class Fusion(nn.Module):
    """Attention-based fusion (ABF) of a map with what came from the next deeper one.

    Args:
        narrow (int): student width; ``mid`` that of all fused maps; ``wide`` that of the teacher.
        fuse (bool): False for the deepest, which has nothing to be fused with.
    """

    def __init__(self, narrow: int, mid: int, wide: int, fuse: bool) -> None:
        super().__init__()
        self.reduce = nn.Sequential(nn.Conv2d(narrow, mid, 1, bias=False), nn.BatchNorm2d(mid))
        self.attend = nn.Conv2d(2 * mid, 2, 1) if fuse else None
        self.widen = nn.Sequential(
            nn.Conv2d(mid, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide)
        )
        for block in (self.reduce, self.widen):
            nn.init.kaiming_uniform_(block[0].weight, a=1)

    def forward(self, x: Tensor, deeper: Tensor | None, size: Any) -> tuple[Tensor, Tensor]:
        """Output of the teacher's width and ``size``, and the fused map for the next shallower."""
        x = _normalized(self.reduce, x)
        if self.attend is not None:
            deeper = F.interpolate(deeper, x.shape[2:], mode='nearest')
            a, b = self.attend(torch.cat((x, deeper), 1)).sigmoid().split(1, 1)
            x = a * x + b * deeper
        sized = x if x.shape[2:] == size else F.interpolate(x, size, mode='nearest')
        return _normalized(self.widen, sized), x


def _normalized(block: nn.Sequential, x: Tensor) -> Tensor:
    """Convolution and BatchNorm; a single value has no statistics, so the running ones serve."""
    conv, norm = block
    x = conv(x)
    if len(x) * x.shape[2] * x.shape[3] > 1:
        return norm(x)
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)


def hierarchical_context(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error at full size and pooled to 4 x 4, 2 x 2 and 1 cell (HCL).

    ``(mse + sum_l w_l mse(pool_l)) / (1 + sum_l w_l)`` with w = 1/2, 1/4, 1/8 for the sizes l that
    are smaller than the map; (N, C, H, W).
    """
    total, weights, weight = F.mse_loss(student, teacher), 1.0, 1.0
    for size in (4, 2, 1):
        if size < min(student.shape[2:]):
            weight /= 2
            pooled = [F.adaptive_avg_pool2d(x, size) for x in (student, teacher)]
            total = total + weight * F.mse_loss(*pooled)
            weights += weight
    return total / weights


@MODELS.register_module()
class ReviewKD(Objective):
    """Distilling knowledge via knowledge review.

    Chen et al., CVPR 2021, eqs. 5-8: from deep to shallow, each student map is fused with the fused
    map of the next deeper level (:class:`Fusion`) and compared with the teacher's map of that level
    by :func:`hierarchical_context`. Compared with dvlab-research/ReviewKD. Without taps: the stages
    of two classifiers, the teacher's before their last ReLU, and the pooled embedding. With taps, a
    pyramid from shallow to deep, for instance ``student='neck'``.

    The weight is 0.6 to 8 on CIFAR-100, by the pair of networks, and 1 for ResNets on ImageNet; the
    authors start slowly: ``weight=dict(value=5, warmup=20 / 240)``.

    Args:
        max_mid (int): the fused maps are as wide as the deepest student map, but at most this.
        student, teacher, weight, teacher_name: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: levels that do not pair up; no taps and no classifiers.
    """

    zero_at_equality = False
    over_scales = True
    families = ('classifier',)
    named_taps = (*DETECTORS, 'segmentor')

    def __init__(self, *taps: Taps, max_mid: int = 512, **common: Any) -> None:
        super().__init__(*taps, **common)
        self.max_mid = check_number('ReviewKD', 'max_mid', max_mid, 1, whole=True)
        self.pairs: list[tuple[int, int]] = []
        self.fusions = nn.ModuleList()

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        classifier.choose_taps(self, _stages, student, None)
        classifier.choose_taps(self, _preacts, None, teacher)

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        if student is None or teacher is None:
            raise ValueError('ReviewKD: the maps at its taps could not be probed at build.')
        options, scale = options_of(ReviewKD), self.image_scale
        self.pairs = pair_levels(student, teacher, owner='ReviewKD', options=options, scale=scale)
        mid = min(self.max_mid, student[self.pairs[-1][0]].channels)
        for k, (i, j) in enumerate(self.pairs):
            deepest = k == len(self.pairs) - 1
            self.fusions.append(Fusion(student[i].channels, mid, teacher[j].channels, not deepest))

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        own = [_as_map(t) for tap in self.student_taps for t in trace.student[tap]]
        wanted = [_as_map(t.detach()) for tap in self.teacher_taps for t in trace.teacher[tap]]
        total, fused = own[0].new_zeros(()), None
        for fusion, (i, j) in zip(reversed(self.fusions), reversed(self.pairs), strict=True):
            found, fused = fusion(own[i], fused, wanted[j].shape[2:])
            total = total + hierarchical_context(found, wanted[j])
        return {'loss': total}


def _as_map(x: Tensor) -> Tensor:
    return x if x.dim() == 4 else x[:, :, None, None]


def _stages(model: nn.Module) -> list[str]:
    return [*classifier.stage_taps(model), classifier.embedding_tap(model)]


def _preacts(model: nn.Module) -> list[str]:
    return [*classifier.preact_taps(model), classifier.embedding_tap(model)]
