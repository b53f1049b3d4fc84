"""CWD: KL divergence of each channel's spatial softmax."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.families import DETECTORS, family_of, segmentor
from mmkd.families.pyramid import pyramid_of
from mmkd.functional.standardise import batch_standardise
from mmkd.levels import Level
from mmkd.objective import PairObjective, Taps
from mmkd.options import check_number, check_temperature
from mmkd.registry import MODELS
from mmkd.tap import Trace, parse_taps
from mmkd.view import View


def channel_wise_kl(
    student: Tensor, teacher: Tensor, tau: float, valid: Tensor | None = None
) -> Tensor:
    """``tau^2 / (N C) * sum_nc KL(softmax_HW(T / tau) || softmax_HW(S / tau))``.

    Args:
        student, teacher (Tensor): (N, C, H, W).
        tau (float): temperature of the softmax over the H * W cells of each channel.
        valid (Tensor | None): (N, H, W) bool; other cells take no part. An image without a valid
            cell contributes 0.
    """
    n, c = student.shape[:2]
    s, t = student.flatten(2) / tau, teacher.flatten(2) / tau
    if valid is not None:
        kept = valid.flatten(1).any(1)
        hidden = ~valid.flatten(1)[kept][:, None]
        s, t = (x[kept].masked_fill(hidden, torch.finfo(x.dtype).min) for x in (s, t))
    kl = F.kl_div(F.log_softmax(s, -1), F.log_softmax(t, -1), reduction='sum', log_target=True)
    return kl * tau**2 / (n * c)


def channel_distribution(x: Tensor, tau: float) -> Tensor:
    """(N, C, H, W) -> the same, each channel a distribution over places."""
    return (x.flatten(2) / tau).softmax(-1).view_as(x)


@MODELS.register_module()
class CWD(PairObjective):
    """Channel-wise knowledge distillation for dense prediction.

    Shu et al., ICCV 2021, eqs. 2-4. Settings compared with irfanICMLL/TorchDistiller (SemSeg) and
    open-mmlab/mmrazor; some re-implementations use the cross entropy, which differs by the
    teacher's entropy, a constant, and is not 0 at equality.

    Works on any map. Without taps: a segmentor's logits before resizing (tau 4, weight 3); a
    detector's pyramid (tau 1, weight 10). For a segmentor's features name a tap, for instance
    ``student='decode_head.bottleneck'`` (tau 4, weight 50, ``adapt='conv1x1_bn_relu'``). C is the
    teacher's width there; winycg/CIRKD divides by the student's, so that its 50 are
    ``50 * C_t / C_s`` here.

    For RTMDet, open-mmlab/mmyolo standardises both sides in front of the convolutions' BatchNorm,
    ``student=['neck.out_convs.0.conv', …]``, ``standardise=True`` (tau 1, weight 1), and stops when
    mosaic does.

    Args:
        tau (float | None): temperature; ``None`` takes the value above.
        mask_ignore (bool): leave out cells with the ignored label. No published code does.
        ignore_index (int): the ignored label.
        standardise (bool): channels of both sides get mean 0 and variance 1 over the batch of a
            process and all places, behind adapters, which then have no bias.
        student, teacher, weight, teacher_name, adapt, resize, level_map, in_channels,
        out_channels: see :class:`~mmkd.objective.PairObjective`.

    Raises:
        ValueError: temperature not above 0; logits of unequal or single class count.
    """

    rank_invariant = True
    scheduled = ('tau',)
    families = (*DETECTORS, 'segmentor')

    def __init__(
        self,
        *taps: Taps,
        tau: float | None = None,
        mask_ignore: bool = False,
        ignore_index: int = 255,
        standardise: bool = False,
        **pair: Any,
    ) -> None:
        super().__init__(*taps, **pair)
        self.tau = check_temperature('CWD', tau, optional=True)
        self.mask_ignore = mask_ignore
        self.ignore_index = check_number('CWD', 'ignore_index', ignore_index, whole=True)
        self.standardise = standardise

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        assert teacher is not None
        tau, weight = (4.0, 50.0) if family_of(student) == 'segmentor' else (1.0, 10.0)
        if not self.student_taps:
            tau, weight = self._choose_taps(student, teacher)
        segmentors = family_of(student) == family_of(teacher) == 'segmentor'
        if segmentors and segmentor.on_logits(student, self.student_taps):
            tau, weight = 4.0, 3.0
            segmentor.check_same_classes(self, student, teacher)
        tau, weight = (1.0, 1.0) if self.standardise else (tau, weight)
        self.tau = self.tau or tau
        self.set_default_weight(weight)

    def _choose_taps(self, student: nn.Module, teacher: nn.Module) -> tuple[float, float]:
        if family_of(student) == 'segmentor' and family_of(teacher) == 'segmentor':
            if not all(map(segmentor.classifies_pixels, (student, teacher))):
                segmentor.bind_features(self, student, teacher)
                return 4.0, 50.0
            segmentor.choose_logits(self, student, teacher)
            return 4.0, 3.0
        part = pyramid_of(student, teacher)
        self.student_taps = parse_taps(part)
        self.teacher_taps = self.teacher_taps or parse_taps(part)
        return 1.0, 10.0

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        super().setup(student, teacher)
        for adapter in self.adapters.values() if self.standardise else ():
            conv = getattr(adapter, 'conv', None)
            if conv is not None and isinstance(adapter.norm, nn.Identity):
                conv.register_parameter('bias', None)  # which the mean takes away

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        losses = [
            self.compare(s, t, segmentor.counted_pixels(self, trace, s.shape[2:]))
            for s, t in self.tensor_pairs(trace)
        ]
        return {'loss': sum(losses)}

    def compare(self, student: Tensor, teacher: Tensor, valid: Tensor | None = None) -> Tensor:
        if self.standardise:
            student, teacher = batch_standardise(student), batch_standardise(teacher)
        return channel_wise_kl(student, teacher, self.tau, valid)

    def views(self, trace: Trace) -> list[View]:
        """Channel distributions: their mean, and that of the channel with the largest loss."""
        views = []
        for pair in self.tensor_pairs(trace):
            pair = tuple(map(batch_standardise, pair)) if self.standardise else pair
            student, teacher = (channel_distribution(x, self.tau) for x in pair)
            kl = teacher * (teacher.clamp(min=1e-12) / student.clamp(min=1e-12)).log()
            worst = int(kl.sum((0, 2, 3)).argmax())
            name = f'channel {worst}, largest loss'
            for title, channels in (('mean attention', slice(None)), (name, [worst])):
                for side, maps in (('student', student), ('teacher', teacher)):
                    shown = maps[:, channels].mean(1) * maps[0, 0].numel()
                    views.append(View(title, shown, side=side, unit='× uniform', scale=2))
        return views
