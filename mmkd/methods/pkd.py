"""PKD: Pearson correlation of feature maps, channel by channel."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.families import DETECTORS, is_two_stage
from mmkd.families.pyramid import bind_pyramid, check_maps
from mmkd.functional.standardise import standardise
from mmkd.levels import Level
from mmkd.objective import PairObjective, Taps
from mmkd.options import check_number
from mmkd.registry import MODELS
from mmkd.tap import Trace
from mmkd.view import View


def pearson_distance(student: Tensor, teacher: Tensor, std_floor: float = 0.0) -> Tensor:
    """Half the mean squared difference of standardised maps, (N, C, H, W) each.

    It is ``(n - 1) / n * (1 - r)`` averaged over channels, r Pearson's correlation over the
    n = N * H * W values of a channel. A single value has no correlation and gives 0.
    """
    if student.numel() <= student.shape[1]:
        return student.sum() * 0.0
    return F.mse_loss(standardise(student, std_floor), standardise(teacher, std_floor)) / 2


@MODELS.register_module()
class PKD(PairObjective):
    """General distillation for object detectors via Pearson correlation coefficient.

    Cao et al., NeurIPS 2022. Compared with open-mmlab/mmrazor, by the same authors. Works between
    different detectors, since it is invariant to scale and offset of a channel. Without taps: the
    first four maps of the neck.

    Statistics are taken over the local batch, padding included, so they depend on its size.

    Args:
        weight: 6 for two-stage teachers, otherwise 10.
        std_floor (float): smallest standard deviation to divide by. A constant channel of the
            student has a gradient of up to 1e6 without one; 1e-3 is a remedy. Published: 0.
        student, teacher, teacher_name, adapt, resize, level_map, in_channels, out_channels: see
            :class:`~mmkd.objective.PairObjective`. The authors compare equal widths only and
            resize the student silently, here ``resize='teacher'``.

    Raises:
        ValueError: a negative std_floor; a model that is no detector.
    """

    families = DETECTORS

    def __init__(self, *taps: Taps, std_floor: float = 0.0, **pair: Any) -> None:
        super().__init__(*taps, **pair)
        self.std_floor = check_number('PKD', 'std_floor', std_floor, 0)

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        assert teacher is not None
        bind_pyramid(self, student, teacher, levels=4)
        self.set_default_weight(6.0 if is_two_stage(teacher) else 10.0)

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        check_maps('PKD', student, teacher)
        super().setup(student, teacher)

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        return pearson_distance(student, teacher, self.std_floor)

    def views(self, trace: Trace) -> list[View]:
        """Where the standardised maps differ: mean square over channels."""
        pairs = [[standardise(x, self.std_floor) for x in p] for p in self.tensor_pairs(trace)]
        title, unit = 'squared difference of standardised features', '× variance'
        return [View(title, (s - t).square().mean(1), unit=unit, scale=2) for s, t in pairs]
