"""TripletDistillation: triplet loss whose margins follow the teacher's distances."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmkd.families import DETECTORS, classifier, family_of
from mmkd.families.comparable import Misfit, named
from mmkd.functional.gather import all_gather_rows
from mmkd.functional.relations import distances, unit
from mmkd.levels import Level
from mmkd.objective import Objective, Taps
from mmkd.options import check_number
from mmkd.registry import MODELS
from mmkd.rows.vectors import row_pairs
from mmkd.tap import Trace


def triplet_gaps(square: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """``D_an - D_ap`` of every pair of one class and every other image.

    Args:
        square (Tensor): squared distances, (B, B).
        labels (Tensor): classes, (B,).

    Returns:
        tuple: (P, B) for P ordered pairs of an anchor and a positive, and (P, B) whether the image
        is of another class.
    """
    same = labels[:, None] == labels
    anchor, positive = (same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)).nonzero(
        as_tuple=True
    )
    return square[anchor] - square[anchor, positive][:, None], ~same[anchor]


def margins(gaps: Tensor, largest: Tensor, low: float, high: float) -> Tensor:
    """``(high - low) * d / d_max + low`` with d the teacher's gap, at least 0; in [low, high]."""
    share = gaps.clamp(min=0) / largest.clamp(min=1e-12)
    return (high - low) * share.clamp(max=1) + low


@MODELS.register_module()
class TripletDistillation(Objective):
    """Triplet distillation for deep face recognition.

    Feng et al., 2019: ``mean over triplets of max(D_ap - D_an + F(d), 0)``, where the margin
    ``F(d) = (m_max - m_min) / d_max * d + m_min`` grows with the teacher's gap
    ``d = max(T_an - T_ap, 0)``. D and T are squared distances of embeddings of length 1. Every
    triplet of the batch counts, so let ``mmkd.ClassUniformSampler`` make batches with several
    images a class. We do not know the paper's margins; a constant one is ``low == high``.

    Without taps: the embeddings of two classifiers; with taps a vector, or a map averaged over
    places, of any model.

    Args:
        low (float): m_min.
        high (float): m_max.
        running_max (bool): d_max is the largest gap since the beginning, not of the batch.
        gather (bool): triplets among the images of all ranks, not only of one's own.
        student, teacher, weight, teacher_name: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: options out of range; not one layer per side; samples without labels; a detector
            or segmentor; no taps and no classifiers. A batch without triplets gives 0.
    """

    needs_ground_truth = True
    zero_at_equality = False
    rank_invariant = True
    over_scales = True
    families = ('classifier',)

    def __init__(
        self,
        *taps: Taps,
        low: float = 0.2,
        high: float = 0.5,
        running_max: bool = False,
        gather: bool = True,
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        self.low = check_number('TripletDistillation', 'low', low, 0)
        self.high = check_number('TripletDistillation', 'high', high, low)
        self.running_max, self.gather = running_max, gather
        self.register_buffer('largest', torch.zeros(()))

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        if family_of(student) in (*DETECTORS, 'segmentor'):
            raise Misfit(
                f'TripletDistillation needs one class an image, which the data of '
                f'{named(student)} do not have.'
            )
        classifier.choose_taps(self, classifier.embedding_tap, student, teacher)

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        found = [None if levels is None else len(levels) for levels in (student, teacher)]
        if set(found) - {None, 1}:
            raise ValueError(
                'TripletDistillation compares one embedding of each network, but the taps show '
                f'{found[0]} of the student and {found[1]} of the teacher. Name one tap of each.'
            )

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        ((student, teacher),) = row_pairs(trace, self, gather=self.gather)
        labels = classifier.labels(trace.samples, student.device)
        labels = all_gather_rows(labels) if self.gather else labels
        own, valid = triplet_gaps(distances(unit(student)).square(), labels)
        wanted, _ = triplet_gaps(distances(unit(teacher)).square(), labels)
        count = valid.sum().clamp(min=1)
        violated = (
            margins(wanted, self._largest(wanted * valid), self.low, self.high) - own
        ) * valid
        return {'loss': violated.clamp(min=0).sum() / count + student.sum() * 0.0}

    def _largest(self, gaps: Tensor) -> Tensor:
        """d_max, from the gaps of a batch and, if asked for, all earlier ones."""
        found = gaps.amax() if gaps.numel() else gaps.new_zeros(())
        if not self.running_max:
            return found
        found = torch.maximum(self.largest, found)
        if self.training:
            self.largest.copy_(found)
        return found
