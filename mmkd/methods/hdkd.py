"""HDKD: features clustered into sub-spaces, compared locally, globally and by channel groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.families import DETECTORS
from mmkd.families.pyramid import bind_pyramid, check_maps
from mmkd.functional.cells import rows
from mmkd.functional.clustering import Partition
from mmkd.functional.device import sizes_of_groups
from mmkd.functional.fusion import fused
from mmkd.functional.logit_distances import soft_kl
from mmkd.functional.masked import masked_mean
from mmkd.levels import Level
from mmkd.objective import PairObjective, Taps
from mmkd.options import check_factors, check_number, check_temperature
from mmkd.registry import MODELS
from mmkd.tap import Trace
from mmkd.view import View

TERMS = ('local', 'global', 'channel', 'information', 'combined')


def standardised(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps (N, C, H, W) minus the teacher's mean over its deviation, channel by channel."""
    std, mean = torch.std_mean(teacher, (0, 2, 3), correction=0, keepdim=True)
    return tuple((x - mean) / std.clamp(min=1e-3) for x in (student, teacher))


def _network(inputs: int, hidden: int, outputs: int, bias: bool) -> nn.Sequential:
    """Two fully connected layers that give 0 at first."""
    last = nn.Linear(hidden, outputs, bias)
    for parameter in last.parameters():
        nn.init.zeros_(parameter)
    return nn.Sequential(nn.Linear(inputs, hidden, bias), nn.ReLU(), last)


@MODELS.register_module()
class HDKD(PairObjective):
    """Heterogeneous dark knowledge by sub-spaces: our construction, no reproduction.

    Ours, 2026: inspired by a web article on heterogeneous dark knowledge distillation, which
    describes sub-spaces of receptive fields, local and global features, channel groups, a
    combination network and an information loss in words, without equations, settings or
    comparable results. Everything that is computed here is an interpretation.

    Cells of the teacher's pyramid are clustered into sub-spaces, the channels of each into groups
    that share one learned weight of the student. Terms: ``'local'``, squared differences in each
    sub-space; ``'global'``, of its mean feature, after a residual network; ``'channel'``, KL of the
    shares of energy of its groups; ``'information'``, difference of the cosines between sub-spaces;
    ``'combined'``, squared differences of the sum of sub-spaces, weighted by a network that looks
    at the student's means. None of this is used at inference.

    With several teachers (``teacher_name=['a', 'b']``) the student learns from the mean of their
    standardised maps, which have to be of equal widths; :class:`FeatureFusion` compares with each.
    ``mmkd sweep`` compares runs of several ratios of task and distillation.

    Args:
        subspaces (int): K.
        groups (int): M, of channels.
        factors (dict[str, float] | None): of the terms, where not 1. A ratio a : b of task and
            distillation is ``weight=b / a``.
        tau (float): temperature of the shares of energy.
        refresh (int): steps between two clusterings of the channels.
        norm_teacher (bool): standardise both maps by the teacher's mean and deviation.
        seed (int): of the clustering, which leaves the run's random numbers alone.
        student, teacher, weight, teacher_name, adapt, resize, level_map, in_channels,
        out_channels: see :class:`~mmkd.objective.PairObjective`.

    Raises:
        ValueError: options out of range; more groups than channels; maps of unequal width or
            unknown stride; several teachers of other levels or widths; a model that is no detector.
    """

    scheduled = ('tau',)
    many_teachers = True
    families = DETECTORS

    def __init__(
        self,
        *taps: Taps,
        subspaces: int = 3,
        groups: int = 8,
        factors: Mapping[str, float] | None = None,
        tau: float = 1.0,
        refresh: int = 500,
        norm_teacher: bool = False,
        seed: int = 0,
        **pair: Any,
    ) -> None:
        super().__init__(*taps, **pair)
        self.k = check_number('HDKD', 'subspaces', subspaces, 1, whole=True)
        self.m = check_number('HDKD', 'groups', groups, 1, whole=True)
        self.refresh = check_number('HDKD', 'refresh', refresh, 1, whole=True)
        self.seed = check_number('HDKD', 'seed', seed, 0, whole=True)
        self.factors = check_factors('HDKD', factors, dict.fromkeys(TERMS, 1.0))
        self.tau = check_temperature('HDKD', tau)
        self.norm_teacher = norm_teacher

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        bind_pyramid(self, student, teacher)

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        check_maps('HDKD', student, teacher)
        self._check_alike()
        if self.level_map is None and student and teacher:  # before levels without a partner
            self._check_pyramid([level.stride for level in student], teacher)
        super().setup(student, teacher)
        strides = [student[i].stride for i, _ in self.pairs] if student else []
        widths = self._check_pyramid(
            strides, [teacher[j] for _, j in self.pairs] if teacher else []
        )
        c, k = widths[0], self.k
        self.partition = Partition(c, strides, k, self.m, self.refresh, self.seed)
        self.omega = nn.Parameter(torch.ones(k, self.m))
        hidden = max(c // 4, 1)
        self.fusion = _network(c, hidden, c, bias=False)
        self.gate = _network(k * c, hidden, k, bias=True)

    def _check_alike(self) -> None:
        """Several teachers must have levels of equal strides and widths."""
        shapes = {
            name: [(level.stride, level.channels) for level in levels or []]
            for name, levels in self.teacher_levels.items()
        }
        first = next(iter(shapes), '')
        for name, found in shapes.items():
            if found != shapes[first]:
                raise ValueError(
                    f"HDKD takes the mean of several teachers' maps, but strides and widths are "
                    f"{shapes[first]} of '{first}' and {found} of '{name}'. Take FeatureFusion, or "
                    'an objective for each.'
                )

    def tensor_pairs(self, trace: Trace) -> list[tuple[Tensor, Tensor]]:
        """Of several teachers the mean of their standardised maps."""
        if len(trace.teachers) < 2:
            return super().tensor_pairs(trace)
        count = len(trace.teachers)
        weights = torch.full((count,), 1 / count, device=trace.inputs.device)
        every = [
            super(HDKD, self).tensor_pairs(replace(trace, teachers={name: side}))
            for name, side in trace.teachers.items()
        ]
        return [
            (levels[0][0], fused([t for _, t in levels], weights))
            for levels in zip(*every, strict=True)
        ]

    def _check_pyramid(self, strides: list[int | None], teacher: list[Level]) -> list[int]:
        """The one width of the teacher's levels; ValueError where there are several."""
        widths = sorted({level.channels for level in teacher})
        if len(widths) != 1 or None in strides or widths[0] < self.m:
            raise ValueError(
                f"HDKD needs a teacher's pyramid of one width, at least {self.m} (groups), and "
                f"known strides, found widths {widths} and strides {strides}. Tap the 'neck'."
            )
        return widths

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        pairs = [standardised(*p) if self.norm_teacher else p for p in self.tensor_pairs(trace)]
        labels = self.partition([t for _, t in pairs], learn=self.training)
        terms = self.terms(pairs, labels)
        cells = sizes_of_groups(labels.flatten(), self.k).float() / labels.numel()
        losses = {f'loss_{name}': self.factors[name] * terms[name] for name in TERMS}
        return losses | {f'share_{k}': share for k, share in enumerate(cells)}

    def terms(self, pairs: list[tuple[Tensor, Tensor]], labels: Tensor) -> dict[str, Tensor]:
        """The five terms without their factors.

        Args:
            pairs (list): maps of student and teacher, (N, C, H_l, W_l) each.
            labels (Tensor): sub-space of each cell of all levels, (N, P).
        """
        sizes = [s.shape[2] * s.shape[3] for s, _ in pairs]
        where = F.one_hot(labels, self.k).to(pairs[0][0])
        width = pairs[0][0].shape[1]
        student, teacher = (rows(side, width) for side in zip(*pairs, strict=True))
        student = (where @ self.omega.gather(1, self.partition.groups)) * student
        counts = where.sum(1)
        seen = counts > 0
        mean_s, mean_t = (where.mT @ x / counts.clamp(min=1)[..., None] for x in (student, teacher))
        energy_s, energy_t = (self._energy(x, where, counts) for x in (student, teacher))
        both = seen[:, :, None] & seen[:, None] & ~torch.eye(self.k, device=seen.device).bool()
        cosine_s, cosine_t = (
            F.cosine_similarity(g[:, :, None], g[:, None], -1, 1e-6) for g in (mean_s, mean_t)
        )
        combined = (where @ self.gates(mean_s)[..., None]) * student
        fused = mean_s + self.fusion(mean_s)
        error = (combined - teacher).square().mean(-1).split(sizes, 1)
        return {
            'local': self._local((student - teacher).square().mean(-1), where, sizes),
            'global': masked_mean((fused - mean_t).square().mean(-1), seen),
            'channel': masked_mean(soft_kl(energy_s.log(), energy_t.log(), self.tau), seen),
            'information': masked_mean((cosine_s - cosine_t).square(), both),
            'combined': torch.stack([level.mean() for level in error]).mean(),
        }

    @staticmethod
    def _local(error: Tensor, where: Tensor, sizes: list[int]) -> Tensor:
        """Mean over levels and sub-spaces, where not empty, of the mean error (N, P) there."""
        levels = list(zip(error.split(sizes, 1), where.split(sizes, 1), strict=True))
        cells = torch.stack([w.sum((0, 1)) for _, w in levels])
        total = torch.stack([torch.einsum('np,npk->k', e, w) for e, w in levels])
        return masked_mean(total / cells.clamp(min=1), cells > 0)

    def _energy(self, x: Tensor, where: Tensor, counts: Tensor) -> Tensor:
        """Mean square of each group of channels in each sub-space, (N, K, M), above 0."""
        power = where.mT @ x.square() / counts.clamp(min=1)[..., None]
        members = F.one_hot(self.partition.groups, self.m).to(x)
        return torch.einsum('nkc,kcm->nkm', power, members) / members.sum(1).clamp(min=1) + 1e-6

    def gates(self, means: Tensor) -> Tensor:
        """Weight of each sub-space in the combination, (N, K, C) -> (N, K), sum K; 1 at first."""
        return self.k * self.gate(means.flatten(1)).softmax(-1)

    def views(self, trace: Trace) -> list[View]:
        """Sub-space of each cell, level by level."""
        pairs = [standardised(*p) if self.norm_teacher else p for p in self.tensor_pairs(trace)]
        maps = [t for _, t in pairs]
        labels = self.partition(maps, learn=False).split([t[0, 0].numel() for t in maps], 1)
        return [
            View('sub-space', part.reshape(len(t), *t.shape[2:]), 'classes')
            for part, t in zip(labels, maps, strict=True)
        ]
