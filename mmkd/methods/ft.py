"""FT: the teacher's features are compressed by an autoencoder, and its factors are regressed."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.families import DETECTORS, classifier
from mmkd.functional.pooling import pool_to_smaller
from mmkd.levels import Level
from mmkd.objective import Objective, Taps
from mmkd.options import check_choice, check_number
from mmkd.registry import MODELS
from mmkd.tap import Trace

PHASES = ('student', 'paraphraser')


def factor_distance(student: Tensor, teacher: Tensor, variant: str = 'code') -> Tensor:
    """Between factors (N, C, H, W), each scaled to length 1 as a vector.

    Args:
        variant (str): ``'code'``: mean absolute difference over all elements; ``'paper'``: its sum
            over an image, mean over N; ``'repdistiller'``: the squares are averaged over channels
            before they are scaled, then the mean absolute difference.
    """
    if variant == 'repdistiller':
        student, teacher = student.square().mean(1), teacher.square().mean(1)
    s, t = (F.normalize(x.flatten(1)) for x in (student, teacher))
    error = (s - t).abs()
    return error.sum(1).mean() if variant == 'paper' else error.mean()


def encoder(channels: int, factors: int, norm: bool = True) -> nn.Sequential:
    """(N, channels, H, W) -> (N, factors, H, W): three 3x3 convolutions with LeakyReLU 0.1."""
    return _stack(nn.Conv2d, [channels, channels, factors, factors], norm)


def decoder(channels: int, factors: int, norm: bool = True) -> nn.Sequential:
    """The inverse, by transposed convolutions."""
    return _stack(nn.ConvTranspose2d, [factors, factors, channels, channels], norm)


def _stack(kind: Any, widths: list[int], norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [kind(before, after, 3, padding=1), *[nn.BatchNorm2d(after)] * norm]
        layers.append(nn.LeakyReLU(0.1))
    return nn.Sequential(*layers)


@MODELS.register_module()
class FT(Objective):
    """Paraphrasing complex network: network compression via factor transfer.

    Kim et al., NeurIPS 2018, eqs. 1-3. First a paraphraser learns to reconstruct the teacher's last
    map from ``rate`` times as many channels; then it is frozen, and a translator behind the
    student's last map regresses its factors. Settings of Jangho-Kim/Factor-Transfer-pytorch; its
    reconstruction is L1, the paper's squared, and it has no BatchNorms. Two phases::

        mmkd train configs/chains/ft_cls_cifar10.py  # phase='paraphraser', then 'student'

    Without taps: the last stages of two classifiers; of unequal maps the larger is averaged. The
    weight of 500 belongs to the authors' 8 x 8 maps: a mean over all factors shrinks with the size
    of the map. For other maps and taps it is kept, uncalibrated.

    Args:
        phase (str): ``'paraphraser'`` trains the paraphraser alone; ``'student'`` the student.
        rate (float): k, factors over the teacher's channels.
        norm (bool): BatchNorms in paraphraser and translator, as torchdistill has them; without,
            as the authors. The same in both phases.
        variant (str): ``'code'``, to which the default weight of 500 belongs, ``'paper'``, or
            ``'repdistiller'``, with a weight of 200 there; see :func:`factor_distance`.
        student, teacher, weight, teacher_name: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: options out of range; more than one map per side; no taps and no classifiers; a
            student's run that does not start from a trained paraphraser.
    """

    default_weight = 500.0
    own_losses = ('loss_reconstruction',)
    zero_at_equality = False
    over_scales = True
    families = ('classifier',)
    named_taps = (*DETECTORS, 'segmentor')

    def __init__(
        self,
        *taps: Taps,
        phase: str = 'student',
        rate: float = 0.5,
        norm: bool = True,
        variant: str = 'code',
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        self.phase = check_choice('FT', 'phase', phase, PHASES)
        variants = ('code', 'paper', 'repdistiller')
        self.variant = check_choice('FT', 'variant', variant, variants)
        self.rate, self.norm = check_number('FT', 'rate', rate, above=0), norm
        #: steps for which the paraphraser was trained
        self.register_buffer('steps', torch.zeros((), dtype=torch.long))

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        if self.phase == 'paraphraser':
            self.student_taps = ()
            classifier.choose_taps(self, _last_stage, None, teacher)
        else:
            classifier.choose_taps(self, _last_stage, student, teacher)

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        alone = self.phase == 'paraphraser'
        if not teacher or len(teacher) != 1 or not (alone or (student and len(student) == 1)):
            raise ValueError('FT compares one map of each network; name one tap of each.')
        wide = teacher[0].channels
        factors = max(int(wide * self.rate), 1)
        self.paraphraser = encoder(wide, factors, self.norm)
        if alone:
            self.decoder = decoder(wide, factors, self.norm)
            return
        assert student is not None
        self.paraphraser.requires_grad_(False)
        self.translator = encoder(student[0].channels, factors, self.norm)
        self.train(self.training)

    def train(self, mode: bool = True) -> FT:
        super().train(mode)
        if self.phase == 'student' and hasattr(self, 'paraphraser'):
            self.paraphraser.eval()
        return self

    def check_dataset(self, dataset: Any) -> None:
        if self.phase == 'student' and not int(self.steps):
            raise ValueError(
                "FT: the paraphraser was never trained. Train it first with phase='paraphraser', "
                'and start this run from its checkpoint: a chain does both (docs/chains.md).'
            )

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        teacher = trace.teacher[self.teacher_taps[0]][0].detach()
        factors = self.paraphraser(teacher)
        if self.phase == 'paraphraser':
            self.steps += self.training
            return {'loss_reconstruction': F.l1_loss(self.decoder(factors), teacher)}
        own = self.translator(trace.student[self.student_taps[0]][0])
        own, factors = pool_to_smaller(own, factors)
        return {'loss': factor_distance(own, factors, self.variant)}


def _last_stage(model: nn.Module) -> str:
    return classifier.stage_taps(model)[-1]
