"""PKT: KL divergence of similarity distributions (cosine kernel) within a batch."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mmkd.functional.relations import conditional, cosines, without_diagonal
from mmkd.objective import Taps
from mmkd.options import check_choice
from mmkd.registry import MODELS
from mmkd.rows.instance_objective import InstanceObjective

_EPS = 1e-7


def neighbour_probabilities(x: Tensor, diagonal: bool = True) -> Tensor:
    """``(cos + 1) / 2`` of rows (B, D), each row of the result (B, B) scaled to sum 1.

    Args:
        diagonal (bool): an image is a neighbour of itself.
    """
    similarity = (cosines(x) + 1) / 2
    return conditional(similarity if diagonal else without_diagonal(similarity))


def transfer_error(student: Tensor, teacher: Tensor, diagonal: bool = True) -> Tensor:
    """Mean over all B^2 pairs of ``p_t log((p_t + eps) / (p_s + eps))``, eps = 1e-7.

    Args:
        student, teacher (Tensor): rows (B, D_s) and (B, D_t).
        diagonal (bool): see :func:`neighbour_probabilities`.
    """
    s, t = (neighbour_probabilities(x, diagonal) for x in (student, teacher))
    return (t * ((t + _EPS).log() - (s + _EPS).log())).mean()


@MODELS.register_module()
class PKT(InstanceObjective):
    """Learning deep representations with probabilistic knowledge transfer.

    Passalis and Tefas, ECCV 2018, with the cosine kernel. The mean is over B^2 pairs, which
    is 1 / B of the divergence; the published weight 30,000 belongs to it at B = 64. Without taps:
    the embeddings of two classifiers; with taps vectors, or maps averaged over places, of any
    model.

    On detectors the instances are objects, with features of the neck; on segmentors regions, with
    the features before the per-pixel classifier. The weight is that for classifiers.

    Args:
        variant (str): each image is a neighbour of itself in the authors' ``'code'``, and is left
            out in the ``'paper'``.
        student, teacher, weight, teacher_name, instances, gather: see
            :class:`~mmkd.rows.instance_objective.InstanceObjective`.

    Raises:
        ValueError: unequally many layers; models that do not fit. A batch of one gives 0.
    """

    default_weight = 30000.0

    def __init__(self, *taps: Taps, variant: str = 'code', **common: Any) -> None:
        super().__init__(*taps, **common)
        self.variant = check_choice('PKT', 'variant', variant, ('code', 'paper'))

    def compare(self, student_rows: Tensor, teacher_rows: Tensor) -> Tensor:
        return transfer_error(student_rows, teacher_rows, diagonal=self.variant == 'code')
