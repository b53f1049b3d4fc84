"""TSL: class probabilities of pixels, and their consistency, the difference from neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.families import segmentor
from mmkd.functional.logit_distances import soft_kl
from mmkd.functional.masked import masked_mean
from mmkd.objective import PairObjective, Taps
from mmkd.options import check_choice, check_factors, check_number
from mmkd.registry import MODELS
from mmkd.tap import Trace
from mmkd.view import View

#: (rows, columns) to one of each two opposite neighbours
_STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))


def consistency(z: Tensor, neighbour_reduce: str = 'sum', border: str = 'valid') -> Tensor:
    """``C(v) = sum over the 8 neighbours u of |z_u - z_v|^2``: differences first, then squares.

    Args:
        z (Tensor): (N, K, H, W).
        neighbour_reduce (str): ``'sum'``, or ``'mean'`` over the neighbours that there are.
        border (str): ``'valid'`` gives only cells with eight neighbours, (N, H - 2, W - 2);
            ``'inbounds'`` all, (N, H, W), with the neighbours inside of the map.
    """
    total = _both_ends([_step(z, *step).square().sum(1) for step in _STEPS])
    if neighbour_reduce == 'mean':
        ones = torch.ones_like(z[:1, 0])
        total = total / _both_ends([_ones(ones, *step) for step in _STEPS]).clamp(min=1)
    return total[:, 1:-1, 1:-1] if border == 'valid' else total


def _step(z: Tensor, rows: int, columns: int) -> Tensor:
    """Each cell's difference to a neighbour, wherever both exist."""
    h, w = z.shape[-2:]
    left, right = max(-columns, 0), max(columns, 0)
    return z[..., rows:, right : w - left] - z[..., : h - rows, left : w - right]


def _ones(ones: Tensor, rows: int, columns: int) -> Tensor:
    return _step(ones, rows, columns) + 1


def _both_ends(squares: list[Tensor]) -> Tensor:
    """Sum of what each cell has with its neighbours, one map for each of the four steps."""
    maps = []
    for square, (rows, columns) in zip(squares, _STEPS, strict=True):
        left, right = max(-columns, 0), max(columns, 0)
        maps.append(F.pad(square, (right, left, rows, 0)))
        maps.append(F.pad(square, (left, right, 0, rows)))
    return torch.stack(maps).sum(0)


def probability_distance(student: Tensor, teacher: Tensor, kind: str = 'l2') -> Tensor:
    """(N, K, H, W) logits -> (N, H, W): ``sum_k (p^s - p^t)^2`` or ``KL(p^t || p^s)``."""
    if kind == 'kl':
        return soft_kl(student.permute(0, 2, 3, 1), teacher.permute(0, 2, 3, 1), 1.0)
    return (student.softmax(1) - teacher.softmax(1)).square().sum(1)


@MODELS.register_module()
class TSL(PairObjective):
    """Improving fast segmentation with teacher-student learning, on logits before resizing.

    Xie et al., BMVC 2018: the mean over pixels of the distance of probabilities (``loss_prob``) and
    of ``(C^s - C^t)^2`` (``loss_consistency``), C the difference from the neighbours.
    Interpretation: no code is public; norm and weights are not known from the sources used, and
    the consistency follows the survey of Sun and Xiong (2023) and SKD's re-implementation.

    Args:
        factors (dict[str, float] | None): of the terms ``'prob'`` and ``'consistency'``, where not
            1 and 0.01; 0 leaves one out. The consistency grows with the fourth power of the logits:
            aim at a tenth of the task loss, which with trained CamVid teachers takes 1e-5.
        prob_loss (str): ``'l2'`` or ``'kl'``.
        source (str): consistency of ``'logits'`` or of ``'prob'`` (probabilities).
        neighbour_reduce, border (str): see :func:`consistency`.
        mask_ignore (bool): leave out pixels with the ignored label, and for the consistency those
            with such a neighbour.
        ignore_index (int): the ignored label.
        student, teacher, teacher_name, learner, resize: see PairObjective.

    Raises:
        ValueError: options out of range; unequal or single class count; a head that classifies
            neither pixels nor masks; a map without inner cells.
    """

    rank_invariant = True
    adapts_width = False
    families = ('segmentor',)

    def __init__(
        self,
        student: Taps = None,
        teacher: Taps = None,
        weight: Any = None,
        teacher_name: str | list[str] | None = None,
        factors: Mapping[str, float] | None = None,
        prob_loss: str = 'l2',
        source: str = 'logits',
        neighbour_reduce: str = 'sum',
        border: str = 'valid',
        mask_ignore: bool = False,
        ignore_index: int = 255,
        resize: str | None = None,
        learner: str = 'student',
    ) -> None:
        super().__init__(
            student, teacher, weight, teacher_name, adapt=None, resize=resize, learner=learner
        )
        self.factors = check_factors('TSL', factors, dict(prob=1.0, consistency=0.01))
        self.prob_loss = check_choice('TSL', 'prob_loss', prob_loss, ('l2', 'kl'))
        self.source = check_choice('TSL', 'source', source, ('logits', 'prob'))
        self.neighbour_reduce = check_choice(
            'TSL', 'neighbour_reduce', neighbour_reduce, ('sum', 'mean')
        )
        self.border = check_choice('TSL', 'border', border, ('valid', 'inbounds'))
        self.mask_ignore = mask_ignore
        self.ignore_index = check_number('TSL', 'ignore_index', ignore_index, whole=True)

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        segmentor.bind_logits(self, student, teacher)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        losses: dict[str, Any] = {}
        for s, t in self.tensor_pairs(trace):
            valid = segmentor.counted_pixels(self, trace, s.shape[2:])
            if self.factors['prob']:
                distance = masked_mean(probability_distance(s, t, self.prob_loss), valid)
                losses['loss_prob'] = losses.get('loss_prob', 0) + self.factors['prob'] * distance
            if self.factors['consistency']:
                distance = self.factors['consistency'] * self._first_order(s, t, valid)
                losses['loss_consistency'] = losses.get('loss_consistency', 0) + distance
        return losses

    def _first_order(self, student: Tensor, teacher: Tensor, valid: Tensor | None) -> Tensor:
        if self.border == 'valid' and min(student.shape[2:]) < 3:
            raise ValueError(
                f'TSL: a map of {tuple(student.shape[2:])} has no cell with eight neighbours; set '
                "border='inbounds'."
            )
        found, wanted = self._consistency(student), self._consistency(teacher)
        if valid is not None:
            near = F.max_pool2d((~valid).float(), 3, stride=1, padding=1) == 0
            valid = near[:, 1:-1, 1:-1] if self.border == 'valid' else near
        return masked_mean((found - wanted).square(), valid)

    def _consistency(self, logits: Tensor) -> Tensor:
        z = logits.softmax(1) if self.source == 'prob' else logits
        return consistency(z, self.neighbour_reduce, self.border)

    def views(self, trace: Trace) -> list[View]:
        """Consistency of both sides."""
        views = []
        for pair in self.tensor_pairs(trace):
            for side, x in zip(('student', 'teacher'), pair, strict=True):
                z = x.softmax(1) if self.source == 'prob' else x
                shown = consistency(z, self.neighbour_reduce, 'inbounds')
                views.append(View('difference from neighbours', shown, side=side))
        return views
