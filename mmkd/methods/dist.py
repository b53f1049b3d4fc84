"""DIST: Pearson correlation of class probabilities, over classes and over samples."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.families import family_of, segmentor
from mmkd.levels import Level
from mmkd.objective import PairObjective, Taps
from mmkd.options import check_factors, check_number, check_temperature
from mmkd.registry import MODELS
from mmkd.rows import logits
from mmkd.tap import Tap, Trace, parse_taps
from mmkd.view import View

_EPS = 1e-8


def pearson(student: Tensor, teacher: Tensor, dim: int, flat: float = 1e-7) -> Tensor:
    """Correlation along one dimension, which is gone from the result.

    It is 0, without a gradient, where the student's standard deviation is below ``flat``: the
    gradient of a constant would be huge.
    """
    s, t = (x - x.mean(dim, keepdim=True) for x in (student, teacher))
    correlation = (s * t).sum(dim) / (s.norm(dim=dim) * t.norm(dim=dim) + _EPS)
    return torch.where(s.detach().square().mean(dim).sqrt() < flat, 0.0, correlation)


def inter_class(student: Tensor, teacher: Tensor, flat: float = 1e-7) -> Tensor:
    """``1 - mean over rows of the correlation over classes``; probabilities (B, K)."""
    if not len(student):
        return student.sum() * 0.0
    return 1 - pearson(student, teacher, 1, flat).mean()


def intra_class(
    student: Tensor, teacher: Tensor, min_std: float = 1e-6, flat: float = 1e-7
) -> Tensor:
    """``1 - mean over classes of the correlation over rows``; probabilities (B, K).

    Classes in which the teacher varies less than ``min_std`` are left out: their correlation is
    noise, and its gradient would be huge. Fewer than three rows give 0, since two always correlate
    by +-1.
    """
    if len(student) < 3:
        return student.sum() * 0.0
    varies = teacher.std(0, correction=0) >= min_std
    correlation = torch.where(varies, pearson(student, teacher, 0, flat), 1.0)
    return (1 - correlation).sum() / varies.sum().clamp(min=1)


@MODELS.register_module()
class DIST(PairObjective):
    """Knowledge distillation from a stronger teacher.

    Huang et al., NeurIPS 2022: ``beta * (1 - mean_b rho over classes) + gamma * (1 -
    mean_k rho over samples)``, on a classifier's ``head.fc``, a segmentor's logits before resizing,
    where every pixel of the local batch is a sample, or the class logits of the RoIs that a
    two-stage student samples. Settings of hunto/DIST_KD.

    Where both segmentors have an auxiliary head, the same is added for its logits.

    A correlation does not depend on the scale of the logits, so its gradient grows as they shrink:
    a student that begins with small ones needs ``optim_wrapper=dict(clip_grad=dict(max_norm=5))``.

    Args:
        weight: 2 for classifiers (with ``tau=4``, CIFAR), else 1.
        tau (float | None): temperature; ``None`` is 4 for classifiers, else 1.
        tau_square (bool): multiply by tau^2, as the classification code does; the paper does not.
        factors (dict[str, float] | None): of the terms ``'inter'`` and ``'intra'`` (beta and
            gamma), where not 1; 0 leaves one out.
        auxiliary (float): weight of the auxiliary heads' logits; 0 does not run the teacher's.
        min_std (float): see :func:`intra_class`; the code has no such limit (0).
        flat (float): rows and classes in which the student's probabilities have a smaller standard
            deviation get no gradient, see :func:`pearson`; the code has no such limit (0).
        mask_ignore (bool): leave out pixels with the ignored label. The code does not.
        ignore_index (int): the ignored label.
        student, teacher, teacher_name, learner, resize: see PairObjective.

    Raises:
        ValueError: options out of range; unequal or single class count; models of unequal kinds.
    """

    adapts_width = False
    scheduled = ('tau',)
    families = logits.KINDS

    def __init__(
        self,
        student: Taps = None,
        teacher: Taps = None,
        weight: Any = None,
        teacher_name: str | list[str] | None = None,
        tau: float | None = None,
        tau_square: bool = True,
        factors: Mapping[str, float] | None = None,
        auxiliary: float = 0.4,
        min_std: float = 1e-6,
        flat: float = 1e-7,
        mask_ignore: bool = False,
        ignore_index: int = 255,
        resize: str | None = None,
        learner: str = 'student',
    ) -> None:
        super().__init__(
            student, teacher, weight, teacher_name, adapt=None, resize=resize, learner=learner
        )
        self.tau = check_temperature('DIST', tau, optional=True)
        self.factors = check_factors('DIST', factors, dict(inter=1.0, intra=1.0))
        self.auxiliary = check_number('DIST', 'auxiliary', auxiliary, 0)
        self.tau_square, self.min_std = tau_square, check_number('DIST', 'min_std', min_std, 0)
        self.flat = check_number('DIST', 'flat', flat, 0)
        self.mask_ignore = mask_ignore
        self.ignore_index = check_number('DIST', 'ignore_index', ignore_index, whole=True)
        self.auxiliary_tap: Tap | None = None
        self.auxiliary_input = -1
        self.kind = ''

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        kinds = [family_of(model) for model in (student, teacher)]
        if kinds == ['segmentor'] * 2 and self.auxiliary and not self.student_taps:
            self._bind_auxiliary(student, teacher)
        self.kind = logits.bind_rows(self, student, teacher)
        self.label_free = self.kind != 'rois'
        count = logits.class_count(student, self.kind)
        tau, weight = (4.0, 2.0) if self.kind == 'images' else (1.0, 1.0)
        self.tau = self.tau or tau
        self.set_default_weight(weight)
        if count == 2 and self.factors['inter']:
            self._drop_inter()

    def _drop_inter(self) -> None:
        if not self.factors['intra']:
            raise ValueError(
                'DIST: with two classes only the intra term has a gradient; set '
                "factors={'intra': 1}."
            )
        warnings.warn(
            'DIST: with two classes the correlation over classes is always +-1, which '
            'has no gradient; the inter term is left out.',
            stacklevel=2,
        )
        self.factors['inter'] = 0.0

    def _bind_auxiliary(self, student: nn.Module, teacher: nn.Module) -> None:
        """Tap the auxiliary heads of both; the teacher's does not run by itself, it is called."""
        taps = [segmentor.auxiliary_tap(model) for model in (student, teacher)]
        if None in taps or self.teacher_taps:
            return
        feats = 'neck' if getattr(teacher, 'neck', None) is not None else 'backbone'
        self.asks_teacher = True
        self.auxiliary_tap = Tap.parse(taps[0])
        self.auxiliary_input = segmentor.auxiliary_input(teacher)
        self.student_taps = parse_taps([segmentor.logits_tap(student), taps[0]])
        self.teacher_taps = parse_taps([segmentor.logits_tap(teacher), feats])
        self.level_map = [(0, 0)]

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        if self.kind == 'rois':
            return
        self._check_auxiliary(student, teacher)
        super().setup(student, teacher)

    def _check_auxiliary(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        """The maps of both auxiliary heads must have one stride; the teacher's has its input's."""
        if self.auxiliary_tap is None or self.resize or not student or not teacher:
            return
        own = [level.stride for level in student if level.tap == str(self.auxiliary_tap)]
        feats = [level.stride for level in teacher if level.tap == str(self.teacher_taps[1])]
        wanted = feats[self.auxiliary_input]
        if own and own[0] != wanted:
            raise ValueError(
                f'DIST: the auxiliary heads give maps of strides {own[0]} and {wanted}; set '
                "resize='student' or resize='teacher', or auxiliary=0, which leaves them out."
            )

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        losses: dict[str, Any] = {}
        if self.kind == 'rois':
            pairs = [logits.rows(trace, self, self.kind)[:2]]
        else:
            pairs = self.tensor_pairs(trace)
        for pair in pairs:
            for name, value in self._correlate(*pair, trace).items():
                losses[f'loss_{name}'] = losses.get(f'loss_{name}', 0) + value
        if self.auxiliary_tap is not None:
            terms = self._correlate(*self._auxiliary_pair(trace), trace)
            losses['loss_auxiliary'] = self.auxiliary * sum(terms.values())
        return losses

    def _auxiliary_pair(self, trace: Trace) -> tuple[Tensor, Tensor]:
        feats = trace.teacher[self.teacher_taps[1]]
        wanted = segmentor.auxiliary_logits(trace.teacher.model, feats)
        return self._same_size(trace.student[self.auxiliary_tap][0], wanted, trace)

    def _correlate(self, student: Tensor, teacher: Tensor, trace: Trace) -> dict[str, Tensor]:
        s, t = ((_rows(x) / self.tau).softmax(1) for x in (student, teacher))
        is_map = student.dim() == 4
        valid = segmentor.counted_pixels(self, trace, student.shape[2:]) if is_map else None
        if valid is not None:
            s, t = s[valid.flatten()], t[valid.flatten()]
        scale = self.tau**2 if self.tau_square else 1.0
        losses = {}
        if self.factors['inter']:
            losses['inter'] = scale * self.factors['inter'] * inter_class(s, t, self.flat)
        if self.factors['intra']:
            losses['intra'] = (
                scale * self.factors['intra'] * intra_class(s, t, self.min_std, self.flat)
            )
        return losses

    def views(self, trace: Trace) -> list[View]:
        """One minus the correlation over the classes of each pixel."""
        views = []
        for pair in self.tensor_pairs(trace):  # none of RoIs
            if pair[0].dim() == 4:
                s, t = ((x / self.tau).softmax(1) for x in pair)
                views.append(View('1 - correlation over classes', 1 - pearson(s, t, 1), scale=1))
        return views


def _rows(x: Tensor) -> Tensor:
    """(N, K, H, W) -> (N * H * W, K); (N, K) as it is."""
    return x if x.dim() == 2 else x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
