"""OFD: partial L2 distance of pre-activations, with a margin ReLU on the teacher's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmkd.families import DETECTORS, classifier
from mmkd.functional.margin_relu import margin_of, partial_square
from mmkd.levels import Level
from mmkd.objective import PairObjective, Taps
from mmkd.registry import MODELS
from mmkd.tap import Trace


@MODELS.register_module()
class OFD(PairObjective):
    """A comprehensive overhaul of feature distillation.

    Heo et al., ICCV 2019, eqs. 1-4, on values before the ReLU: the teacher's are cut off at a
    margin, the mean of their negative part, which follows from the BatchNorm in front of the ReLU;
    the student's pass a 1x1 convolution with BatchNorm; the distance is
    :func:`~mmkd.functional.margin_relu.partial_square`. The
    last level has weight 1, each earlier one half of the next. Compared with
    clovaai/overhaul-distillation (which leaves the teacher's BatchNorm in training mode; here it is
    not): sum over an image, mean over N, weight 1e-3 on CIFAR, 1e-4 on ImageNet, 1e-5 for
    segmentation.

    Args:
        norms (list[str] | None): paths of the teacher's BatchNorms in front of the tapped ReLUs,
            one per level. ``None``: those of a classifier's stages; with taps of your own the
            margins are measured on the first batch.
        student, teacher, weight, teacher_name, learner, resize, level_map: see PairObjective. Tap
            the inputs of ReLUs; by default, those of all stages of two classifiers.

    Raises:
        ValueError: ``norms`` that are no BatchNorms of the teacher, or not one per level; no taps
            and no classifiers.
    """

    default_weight = 1e-3
    families = ('classifier',)
    named_taps = (*DETECTORS, 'segmentor')

    def __init__(
        self,
        student: Taps = None,
        teacher: Taps = None,
        weight: Any = None,
        teacher_name: str | list[str] | None = None,
        norms: list[str] | None = None,
        resize: str | None = None,
        level_map: str | list | None = None,
        learner: str = 'student',
    ) -> None:
        super().__init__(
            student, teacher, weight, teacher_name, 'conv1x1_bn', resize, level_map, learner=learner
        )
        self.norms, self.known = norms, 0
        self.measured: set[int] = set()  # levels whose margins are known to be measured
        self.register_load_state_dict_post_hook(lambda objective, _: objective.measured.clear())

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        assert teacher is not None
        norms = [_norm(teacher, path) for path in self.norms or []]
        if self.norms is None and not self.teacher_taps:
            classifier.choose_taps(self, classifier.preact_taps, student, teacher)
            norms = classifier.preact_norms(teacher)
        classifier.choose_taps(self, classifier.preact_taps, student, teacher)
        for index, norm in enumerate(norms):
            margin = margin_of(norm.bias.detach(), norm.weight.detach().abs())
            self.register_buffer(f'margin_{index}', margin.float())
        self.known = len(norms)

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        super().setup(student, teacher)
        assert teacher is not None
        for weight in self.adapters.parameters():
            if weight.dim() == 4:
                nn.init.kaiming_normal_(weight, mode='fan_out')  # as the authors
        if self.known not in (0, len(teacher)):
            raise ValueError(
                f'OFD: there are {self.known} BatchNorms for {len(teacher)} teacher levels; norms '
                'must name one per level.'
            )
        for index, level in enumerate([] if self.known else teacher):
            unknown = torch.full((level.channels,), float('nan'))
            self.register_buffer(f'margin_{index}', unknown)  # measured on the first batch

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        pairs = self.tensor_pairs(trace)
        last = len(pairs) - 1
        losses = [
            self.compare(student, self._cut(teacher, j)) * 0.5 ** (last - k)
            for k, ((student, teacher), (_, j)) in enumerate(zip(pairs, self.pairs, strict=True))
        ]
        return {'loss': sum(losses)}

    def _cut(self, teacher: Tensor, level: int) -> Tensor:
        margin = self.get_buffer(f'margin_{level}')
        if level not in self.measured:
            if bool(margin.isnan().any()):
                margin.copy_(measured_margin(teacher))
            self.measured.add(level)
        return torch.maximum(teacher, margin.view(-1, 1, 1))

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        return partial_square(student, teacher).flatten(1).sum(1).mean()


def measured_margin(x: Tensor) -> Tensor:
    """Mean of the negative values of each channel, (N, C, H, W) -> (C,); 0 where there are none."""
    negative = x < 0
    return (x * negative).sum((0, 2, 3)) / negative.sum((0, 2, 3)).clamp(min=1)


def _norm(teacher: nn.Module, path: str) -> nn.Module:
    """A BatchNorm of the teacher by its path."""
    try:
        norm = teacher.get_submodule(path)
    except AttributeError:
        norm = None
    if getattr(norm, 'weight', None) is None or not hasattr(norm, 'running_mean'):
        raise ValueError(
            f"OFD: norms names '{path}', but that is no BatchNorm of {type(teacher).__name__}. "
            'Name those in front of the tapped ReLUs, or leave norms out.'
        )
    return norm
