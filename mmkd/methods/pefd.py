"""PEFD: cosine distance of features through an ensemble of projectors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmkd.families import DETECTORS, classifier
from mmkd.functional.relations import unit
from mmkd.objective import PairObjective, Taps
from mmkd.registry import MODELS
from mmkd.tap import Trace


def cosine_distance(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of ``1 - cos`` of features of rows (N, C), tokens (N, L, C) or cells (N, C, H, W).

    Returns:
        tuple: the mean over those whose teacher's feature is not zero, which has no direction, and
        the number of the others.
    """
    if student.dim() == 4:
        student, teacher = (x.permute(0, 2, 3, 1) for x in (student, teacher))
    told = teacher.abs().amax(-1) > 0
    apart = (1 - (unit(student) * unit(teacher)).sum(-1)) * told
    return apart.sum() / told.sum().clamp(min=1), (~told).sum()


@MODELS.register_module()
class PEFD(PairObjective):
    """Improved feature distillation via projector ensemble.

    Chen et al., NeurIPS 2022: ``mean(1 - cos(h, f_t))`` with ``h = 1 / m * sum_k ReLU(W_k f_s +
    b_k)`` of m = 3 projectors that begin with different weights. Compared with chenyd7/PEFD, whose
    weight is 25, beside the cross entropy alone. Without taps: the pooled features of two
    classifiers.

    Our construction for maps of any model, with named taps: 1x1 convolutions, the cosine of each
    cell, the mean over cells and pairs. Features of both signs, such as an FPN's, need
    ``adapt='ensemble3_signed'``. The ensemble is an adapter of any method on feature maps:
    ``FitNet(adapt='ensemble3')`` is one with a squared distance.

    Args:
        student, teacher, weight, teacher_name, adapt, resize, level_map, in_channels,
            out_channels: see :class:`~mmkd.objective.PairObjective`.

    Raises:
        ValueError: no taps and no classifiers; an ensemble of fewer than two projectors.
    """

    default_weight = 25.0
    zero_at_equality = False
    rank_invariant = True
    families = ('classifier',)
    named_taps = (*DETECTORS, 'segmentor')

    def __init__(self, *taps: Taps, adapt: str | None = 'ensemble3', **pair: Any) -> None:
        super().__init__(*taps, adapt=adapt, **pair)

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        classifier.choose_taps(self, classifier.embedding_tap, student, teacher)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        pairs = [cosine_distance(s, t) for s, t in self.tensor_pairs(trace)]
        loss, without = (torch.stack(found) for found in zip(*pairs, strict=True))
        return {'loss': loss.mean(), 'without_direction': without.sum().float()}
