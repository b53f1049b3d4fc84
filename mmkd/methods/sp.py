"""SP: Gram matrices of a batch, the pairwise similarities of its activations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmkd.families import classifier
from mmkd.functional.relations import at_least_float32, unit
from mmkd.registry import MODELS
from mmkd.rows.instance_objective import InstanceObjective


def similarities(x: Tensor) -> Tensor:
    """``F F^T`` with rows of length 1, (B, D) -> (B, B)."""
    x = at_least_float32(x)
    # The scale cancels; taking it out first keeps products of long rows in range.
    x = x / x.detach().abs().amax().clamp(min=torch.finfo(x.dtype).tiny)
    return unit(x @ x.T)


def similarity_error(student: Tensor, teacher: Tensor) -> Tensor:
    """``|G_t - G_s|_F^2 / B^2`` of rows (B, D_s) and (B, D_t); at most 4 / B."""
    return (similarities(teacher) - similarities(student)).square().mean()


@MODELS.register_module()
class SP(InstanceObjective):
    """Similarity-preserving knowledge distillation, summed over the layers tapped.

    Tung and Mori, ICCV 2019: ``G`` holds the inner products of all flattened maps of a
    batch, each row scaled to length 1. Widths and sizes of maps may differ. Without taps: the last
    stage of two classifiers; with taps maps or vectors of any model, paired by position. The value
    shrinks like 1 / B; the published weight 3,000 belongs to batches of 64.

    On detectors the instances are objects, with features of the neck; on segmentors regions, with
    the features before the per-pixel classifier. The weight is that for classifiers.

    Args:
        student, teacher, weight, teacher_name, instances, gather: see
            :class:`~mmkd.rows.instance_objective.InstanceObjective`.

    Raises:
        ValueError: unequally many layers; models that do not fit. A batch of one gives 0.
    """

    default_weight = 3000.0
    pooled = False

    @staticmethod
    def taps_of(model: nn.Module) -> str:
        return classifier.stage_taps(model)[-1]

    def compare(self, student_rows: Tensor, teacher_rows: Tensor) -> Tensor:
        return similarity_error(student_rows, teacher_rows)
