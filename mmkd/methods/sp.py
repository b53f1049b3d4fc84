"""SP: images that look alike to the teacher should look alike to the student."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmkd.families import WITH_INSTANCES, classifier
from mmkd.functional.relations import at_least_float32, unit
from mmkd.levels import Level
from mmkd.objective import Objective, Taps
from mmkd.registry import MODELS
from mmkd.rows.instances import Instances
from mmkd.tap import Trace


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
class SP(Objective):
    """Similarity-preserving knowledge distillation, summed over the layers tapped.

    Tung and Mori, ICCV 2019: ``G`` holds the inner products of all flattened maps of a
    batch, each row scaled to length 1. Widths and sizes of maps may differ. Without taps: the last
    stage of two classifiers; with taps maps or vectors of any model, paired by position. The value
    shrinks like 1 / B; the published weight 3,000 belongs to batches of 64.

    On detectors the instances are objects, seen on the neck; on segmentors regions, seen before the
    per-pixel classifier. The weight is that for classifiers.

    Args:
        instances (str | None): what a row is: ``'images'``, ``'boxes'`` of the ground truth, or
            ``'regions'``, the mean of each class in each image; ``None`` suits the student.
        gather (bool): compare the instances of all ranks, not only of one's own.
        student, teacher, weight, teacher_name: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: unequally many layers; models that do not fit. A batch of one gives 0.
    """

    default_weight = 3000.0
    rank_invariant = True
    families = WITH_INSTANCES
    named_taps = ('yolo',)

    def __init__(
        self,
        student: Taps = None,
        teacher: Taps = None,
        weight: Any = None,
        teacher_name: str | None = None,
        instances: str | None = None,
        gather: bool = True,
    ) -> None:
        super().__init__(student, teacher, weight, teacher_name)
        self.instances = Instances('SP', instances, gather, pooled=False)

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        self.instances.bind(self, _last_stage, student, teacher)

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        self.instances.setup(student, teacher)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        pairs = self.instances.pairs(trace, self)
        return {'loss': sum(similarity_error(s, t) for s, t in pairs)}

    def describe(self) -> list[str]:
        return self.instances.describe()


def _last_stage(model: nn.Module) -> str:
    return classifier.stage_taps(model)[-1]
