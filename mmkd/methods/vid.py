"""VID: variational mutual information, the Gaussian log-likelihood of the teacher's features."""

from __future__ import annotations

from math import expm1, log
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.families import DETECTORS, classifier
from mmkd.functional.pooling import pool_to_smaller
from mmkd.levels import Level
from mmkd.map_sizes import Map, whole
from mmkd.objective import PairObjective, Taps
from mmkd.options import check_number
from mmkd.registry import MODELS
from mmkd.tap import Trace

_EPS = 1e-5


def gaussian_nll(mean: Tensor, teacher: Tensor, variance: Tensor) -> Tensor:
    """``mean over n, c, h, w of 1/2 ((mu - T)^2 / sigma_c^2 + log sigma_c^2)``; may be negative.

    Args:
        mean, teacher (Tensor): (N, C, H, W).
        variance (Tensor): sigma^2 of each channel, (C,).
    """
    variance = variance.view(-1, 1, 1)
    return ((mean - teacher).square() / variance + variance.log()).mean() / 2


@MODELS.register_module()
class VID(PairObjective):
    """Variational information distillation for knowledge transfer.

    Ahn et al., CVPR 2019, eqs. 4-6, without the constant log(2 pi) / 2; summed over levels. Each
    teacher channel is a Gaussian whose mean is regressed from the student's map by three 1x1
    convolutions and whose variance, ``softplus(alpha_c) + 1e-5``, is learnt (the optimiser must not
    decay ``rho``: add ``paramwise_cfg=dict(custom_keys={'rho': dict(decay_mult=0)})``). Settings of
    RepDistiller. Without taps: all stages of two classifiers; with taps maps of any model.

    Args:
        variance (float): initial variance of each channel.
        student, teacher, weight, teacher_name, learner, level_map: see PairObjective. Of unequal
            maps the larger is average-pooled.

    Raises:
        ValueError: a variance not above 0; no taps and no classifiers.
    """

    zero_at_equality = False
    families = ('classifier',)
    named_taps = (*DETECTORS, 'segmentor')

    def __init__(
        self,
        student: Taps = None,
        teacher: Taps = None,
        weight: Any = 1.0,
        teacher_name: str | list[str] | None = None,
        variance: float = 5.0,
        level_map: str | list | None = None,
        learner: str = 'student',
    ) -> None:
        super().__init__(
            student, teacher, weight, teacher_name, 'auto', 'teacher', level_map, learner=learner
        )
        self.initial = check_number('VID', 'variance', variance, above=_EPS)
        self.rho = nn.ParameterList()

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        classifier.choose_taps(self, classifier.stage_taps, student, teacher)

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        super().setup(student, teacher)
        assert student is not None and teacher is not None
        for k, (i, j) in enumerate(self.pairs):
            wide = teacher[j].channels
            self.adapters[f'{k}'] = regressor(student[i].channels, wide)
            start = log(expm1(self.initial - _EPS))  # softplus of it is the asked variance
            self.rho.append(nn.Parameter(torch.full((wide,), start)))

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        losses = [
            gaussian_nll(mean, teacher, self.variance(k))
            for k, (mean, teacher) in enumerate(self.tensor_pairs(trace))
        ]
        variance = torch.cat([self.variance(k).detach() for k in range(len(losses))]).mean()
        return {'loss': sum(losses), 'variance': variance}

    def variance(self, pair: int) -> Tensor:
        """sigma^2 of each teacher channel of a pair, (C,)."""
        return F.softplus(self.rho[pair]) + _EPS

    def _same_size(self, student: Map, teacher: Map, trace: Trace) -> tuple[Tensor, Tensor]:
        return pool_to_smaller(whole(student), whole(teacher))


def regressor(narrow: int, wide: int) -> nn.Sequential:
    """(N, narrow, H, W) -> (N, wide, H, W): three 1x1 convolutions without bias, ReLU between."""
    return nn.Sequential(
        nn.Conv2d(narrow, wide, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(wide, wide, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(wide, wide, 1, bias=False),
    )
