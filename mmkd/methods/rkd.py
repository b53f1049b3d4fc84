"""RKD: pairwise distances and triplet angles between the embeddings of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mmkd.functional.relations import distances, unit
from mmkd.objective import Taps
from mmkd.options import check_choice, check_factors
from mmkd.registry import MODELS
from mmkd.rows.instance_objective import InstanceObjective
from mmkd.tap import Trace

#: numbers held at a time for angles; beyond, they are computed in parts, and again backwards
_AT_ONCE = 2**24
NORMALIZE = ('none', 'teacher', 'both')


def relative_distances(x: Tensor) -> Tensor:
    """Distances between rows over the mean of the positive ones, (B, D) -> (B, B)."""
    found = distances(x)
    return found / (found.sum() / (found > 0).sum().clamp(min=1)).clamp(min=1e-12)


def distance_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over all B^2 pairs of ``huber(psi_s - psi_t)``; rows (B, D_s) and (B, D_t)."""
    return F.smooth_l1_loss(relative_distances(student), relative_distances(teacher))


def angles(x: Tensor, vertices: Tensor) -> Tensor:
    """Cosine of the angle at e_j between e_i and e_k, (B, D) and V vertices j -> (V, B, B).

    It is 0 where an arm has no length.
    """
    arms = unit(x[None] - x[vertices][:, None])
    return arms @ arms.transpose(1, 2)


def angle_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over all B^3 triples of ``huber(psi_s - psi_t)``; rows (B, D_s) and (B, D_t)."""
    b = len(student)
    each = b * (2 * b + student.shape[1] + teacher.shape[1])
    parts = torch.arange(b, device=student.device).split(max(_AT_ONCE // each, 1))
    total = student.sum() * 0.0
    for vertices in parts:
        if len(parts) == 1:
            total = total + _angle_error_at(student, teacher, vertices)
        else:
            total = total + checkpoint(
                _angle_error_at,
                student,
                teacher,
                vertices,
                use_reentrant=False,
                preserve_rng_state=False,
            )
    return total / b**3


def _angle_error_at(student: Tensor, teacher: Tensor, vertices: Tensor) -> Tensor:
    return F.smooth_l1_loss(angles(student, vertices), angles(teacher, vertices), reduction='sum')


@MODELS.register_module()
class RKD(InstanceObjective):
    """Relational knowledge distillation, of distances and of angles.

    Park et al., CVPR 2019, with Huber's loss of width 1. Means include pairs and triples of an
    image with itself, as in all implementations; without them the means would be B / (B - 1), and
    B^2 / ((B - 1) (B - 2)), times as large. Weights 25 and 50 are RepDistiller's for classifiers;
    metric learning takes 1 and 2 and ``normalize='teacher'``. Without taps: the embeddings of two
    classifiers; with taps vectors, or maps averaged over places, of any model. Angles of B images
    cost B^3 operations; memory is bounded.

    On detectors the instances are objects, with features of the neck; on segmentors regions, with
    the features before the per-pixel classifier. The weights are those for metric learning then.

    Args:
        factors (dict[str, float] | None): of the terms ``'distance'`` and ``'angle'``, where not 25
            and 50 for images, 1 and 2 for objects and regions; 0 leaves one out.
        normalize (str): embeddings scaled to length 1 before: ``'none'`` (RepDistiller), the
            ``'teacher'``'s (lenscloth/RKD) or ``'both'`` (mmrazor).
        student, teacher, weight, teacher_name, instances, gather: see
            :class:`~mmkd.rows.instance_objective.InstanceObjective`.

    Raises:
        ValueError: options out of range; unequally many layers; models that do not fit. One
            image gives 0, two have no angle and always the same distance.
    """

    def __init__(
        self,
        *taps: Taps,
        factors: Mapping[str, float] | None = None,
        normalize: str = 'none',
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        self.asked_factors = factors
        self.factors = check_factors('RKD', factors, dict(distance=25.0, angle=50.0))
        self.normalize = check_choice('RKD', 'normalize', normalize, NORMALIZE)

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        if self.instances.rows != 'images':
            published = dict(distance=1.0, angle=2.0)
            self.factors = check_factors('RKD', self.asked_factors, published)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        pairs = [self._normalised(*pair) for pair in self.instances.pairs(trace, self)]
        errors = dict(distance=distance_error, angle=angle_error)
        return {
            f'loss_{term}': factor * sum(errors[term](*pair) for pair in pairs)
            for term, factor in self.factors.items()
            if factor
        }

    def _normalised(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        if self.normalize == 'none':
            return student, teacher
        return (unit(student) if self.normalize == 'both' else student), unit(teacher)
