"""FitNet: hint loss, the mean squared error between intermediate feature maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.families import DETECTORS, classifier
from mmkd.levels import Level
from mmkd.objective import PairObjective, Taps
from mmkd.options import check_choice, check_number
from mmkd.registry import MODELS


def hint_error(student: Tensor, teacher: Tensor, variant: str = 'code') -> Tensor:
    """Squared error of (N, C, H, W): the mean over all elements, or ``'paper'``: half the sum of
    an image, mean over N; ``'l1'``: the mean absolute error."""
    if variant == 'l1':
        return (student - teacher).abs().mean()
    error = (student - teacher).square()
    return error.mean() if variant == 'code' else error.flatten(1).sum(1).mean() / 2


@MODELS.register_module()
class FitNet(PairObjective):
    """FitNets: hints for thin deep nets.

    Romero et al., ICLR 2015, eq. 3. Without taps: the middle stage of two classifiers, through a
    1x1 convolution with BatchNorm; with taps maps of any model, for instance ``student='neck'``.
    RepDistiller has a ReLU behind it, ``adapt='conv1x1_bn_relu'``. Public codes train the hint
    beside the task (the default); the paper first trains the student's layers up to the hint alone,
    then the student by KD::

        mmkd train configs/chains/fitnet_kd_cls_cifar10.py

    The weight of 100 is RepDistiller's, for its regressor (a convolution that changes the size) and
    for classifiers; it is kept here for a 1x1 convolution and any taps, uncalibrated.

    Args:
        variant (str): ``'code'`` is the mean squared error of RepDistiller, to which the default
            weight of 100 belongs; ``'paper'`` is C * H * W / 2 times that; ``'l1'`` the mean
            absolute error, as MSAD compares pyramids.
        tolerance (int): both maps are first averaged over windows of so many cells a side, at
            stride 1: for two sensors that do not see quite the same place (ours).
        student, teacher, weight, teacher_name, adapt, resize, level_map, in_channels,
        out_channels: see :class:`~mmkd.objective.PairObjective`; maps of unequal size are resized
            to the teacher's.

    Raises:
        ValueError: an unknown variant; no taps and no classifiers; maps smaller than the tolerance.
    """

    default_weight = 100.0
    families = ('classifier',)
    named_taps = (*DETECTORS, 'segmentor')

    def __init__(
        self,
        *taps: Taps,
        variant: str = 'code',
        tolerance: int = 1,
        adapt: str | None = 'conv1x1_bn',
        resize: str | None = 'teacher',
        **pair: Any,
    ) -> None:
        super().__init__(*taps, adapt=adapt, resize=resize, **pair)
        self.variant = check_choice('FitNet', 'variant', variant, ('code', 'paper', 'l1'))
        self.tolerance = check_number('FitNet', 'tolerance', tolerance, 1, whole=True)

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        classifier.choose_taps(self, classifier.middle_stage_tap, student, teacher)

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        super().setup(student, teacher)
        for size in self.compared_sizes(student, teacher):
            if max(size, default=1) == 1:  # however large the images are
                self._check_windows(size)

    def _check_windows(self, size: Sequence[int]) -> None:
        if self.tolerance > 1 and min(size, default=0) < self.tolerance:
            raise ValueError(
                f'FitNet: tolerance={self.tolerance} averages windows of so many cells, but '
                f'maps have {tuple(size)}. Take a smaller one, or an earlier map.'
            )

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        if self.tolerance > 1:
            self._check_windows(student.shape[2:])
            student, teacher = (F.avg_pool2d(x, self.tolerance, 1) for x in (student, teacher))
        return hint_error(student, teacher, self.variant)
