"""FeatureGAN: adversarial loss of a patch critic on feature maps of student and teacher (AFD)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.adapters.critic import Certainty, judged, patch_layers
from mmkd.families import DETECTORS, classifier
from mmkd.families.pyramid import check_maps
from mmkd.levels import Level
from mmkd.objective import PairObjective, Taps
from mmkd.options import check_choice, check_number
from mmkd.registry import MODELS
from mmkd.tap import Trace

FORMS = ('lsgan', 'hinge', 'bce')
LEAST_CELLS = 4
_OPTIMIZER = dict(type='Adam', lr=2e-4, betas=(0.5, 0.999))


def fool(score: Tensor, form: str) -> Tensor:
    """What the student minimises, given the critic's scores of its map.

    ``'lsgan'``: ``E[(1 - D(s))^2]``; ``'hinge'``: ``-E[D(s)]``; ``'bce'``: ``-E[log D(s)]`` with a
    sigmoid of the score.
    """
    if form == 'lsgan':
        return (1 - score).square().mean()
    return -score.mean() if form == 'hinge' else F.softplus(-score).mean()


def contest(real: Tensor, fake: Tensor, form: str) -> Tensor:
    """What the critic minimises, given its scores of the teacher's and of the student's map.

    ``'lsgan'``: ``E[(1 - D(t))^2] / 2 + E[D(s)^2] / 2``; ``'hinge'``:
    ``E[max(0, 1 - D(t))] + E[max(0, 1 + D(s))]``; ``'bce'``: ``-E[log D(t)] - E[log(1 - D(s))]``.
    """
    if form == 'lsgan':
        return ((1 - real).square().mean() + fake.square().mean()) / 2
    if form == 'hinge':
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    return F.softplus(-real).mean() + F.softplus(fake).mean()


@MODELS.register_module()
class FeatureGAN(PairObjective):
    """Feature-map-level online adversarial knowledge distillation.

    Chung et al., ICML 2020 (AFD), for a frozen teacher or for peers. Each pair of maps has a critic
    of two 3x3 convolutions of stride 2, with spectral norm and without BatchNorm, which scores
    patches: high for the teacher's map, low for the student's. The student is to be scored high.
    The critic learns in the same step, from the same maps and by an optimiser of its own
    ([objectives](../objectives.md#an-optimiser-of-its-own)), which also trains the adapter that
    brings the student's map to the teacher's width. It ends in a ReLU, without which a critic knows
    the student's map by its sign; maps of both signs, such as an FPN's, want ``adapt='conv1x1'``.
    In the paper's form two peers teach each other,
    each with a critic that calls its own map fake and the other's real; three or more in a cycle::

        peers=dict(other=…),
        objectives=dict(
            down=dict(type='mmkd.FeatureGAN', teacher_name='other'),
            up=dict(type='mmkd.FeatureGAN', learner='other', teacher_name='student'),
        )

    Distributions alone do not say which image a map belongs to, so a term that compares image by
    image, such as KD, goes beside it. The weight is ours. The log shows ``accuracy``, the share of
    patches that the critics assign to the right network: near 1 the term teaches nothing.

    Without taps: the last stage of two classifiers; with taps maps of any model.

    Args:
        form (str): ``'lsgan'`` (least squares), ``'hinge'`` or ``'bce'``.
        width (int): channels of the critics.
        optimizer (dict | None): of critics and adapters; None is Adam, learning rate 2e-4, betas
            0.5 and 0.999. It follows the run's ``param_scheduler``.
        student, teacher, weight, teacher_name, learner, adapt, resize, level_map: see
        :class:`~mmkd.objective.PairObjective`; maps of unequal size are resized to the teacher's.

    Raises:
        ValueError: an unknown form; no taps and no classifiers; taps that show no maps, or maps of
            fewer than four cells.
    """

    default_weight = 0.1
    zero_at_equality = False
    adversarial = True
    own_losses = ('loss_critic',)
    families = ('classifier',)
    named_taps = (*DETECTORS, 'segmentor')

    def __init__(
        self,
        *taps: Taps,
        form: str = 'lsgan',
        width: int = 64,
        optimizer: Mapping[str, Any] | None = None,
        adapt: str | None = 'conv1x1_bn_relu',
        resize: str | None = 'teacher',
        **pair: Any,
    ) -> None:
        super().__init__(*taps, adapt=adapt, resize=resize, **pair)
        self.form = check_choice('FeatureGAN', 'form', form, FORMS)
        self.width = check_number('FeatureGAN', 'width', width, 1, whole=True)
        self.optimizer = dict(_OPTIMIZER if optimizer is None else optimizer)
        self.critics = nn.ModuleList()
        self.certainty = Certainty('FeatureGAN')

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        classifier.choose_taps(self, lambda m: classifier.stage_taps(m)[-1], student, teacher)

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        check_maps('FeatureGAN', student, teacher)
        super().setup(student, teacher)
        for size in self.compared_sizes(student, teacher):
            _check_size(size)
        widths = [level.channels for level in teacher or self._typed_levels()[1]]
        for _, level in self.pairs:
            trunk = patch_layers(widths[level], self.width)
            self.critics.append(nn.Sequential(trunk, nn.Conv2d(self.width, 1, 1)))

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        zero = trace.inputs.new_zeros((), dtype=torch.float32)
        losses = dict(loss_fool=zero, loss_critic=zero)
        right, patches = zero, 0
        threshold = 0.5 if self.form == 'lsgan' else 0.0
        for critic, (student, teacher) in zip(self.critics, self.tensor_pairs(trace), strict=True):
            _check_size(student.shape[2:])
            losses['loss_fool'] = losses['loss_fool'] + fool(judged(critic, student), self.form)
            real, fake = critic(teacher), critic(student.detach())
            losses['loss_critic'] = losses['loss_critic'] + contest(real, fake, self.form)
            right = right + (real > threshold).sum() + (fake < threshold).sum()
            patches += real.numel() + fake.numel()
        accuracy = right / patches
        if self.training:
            self.certainty(accuracy, trace.progress)
        return losses | dict(accuracy=accuracy)

    def describe(self) -> list[str]:
        return [*super().describe(), f'{len(self.critics)} critic(s) of patches, {self.form}']


def _check_size(size: Sequence[int]) -> None:
    if len(size) != 2 or size[0] * size[1] < LEAST_CELLS:
        shown = ' x '.join(map(str, size)) or 'no'
        raise ValueError(
            f'FeatureGAN: a map of {shown} cells has no patches to tell apart; it needs '
            f'{LEAST_CELLS}. Tap an earlier stage (student=, teacher=), or take larger images.'
        )
