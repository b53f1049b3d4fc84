"""SKD holistic: adversarial loss of a critic on the logits of student and teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.adapters.critic import LEAST_SIDE, Critic, gradient_penalty, judged
from mmkd.families import segmentor
from mmkd.functional.resize import resize
from mmkd.levels import Level
from mmkd.objective import PairObjective, Taps
from mmkd.options import check_choice, check_number
from mmkd.registry import MODELS
from mmkd.tap import Trace

_OPTIMIZER = dict(type='SGD', lr=4e-4, momentum=0.9, weight_decay=5e-4)
_FIRST = {'logits_bn': nn.BatchNorm2d, 'tanh': lambda k: nn.Tanh(), 'softmax': nn.Identity}


def fool(critic: nn.Module, student: Tensor) -> Tensor:
    """``-E[D(student)]``, which the student minimises; the critic's parameters are constants.

    Args:
        critic (nn.Module): D, (N, C, H, W) -> (N,).
        student (Tensor): (N, C, H, W).
    """
    return -judged(critic, student).mean()


def contest(
    critic: nn.Module, student: Tensor, teacher: Tensor, gan_type: str
) -> tuple[Tensor, ...]:
    """Loss of the critic without penalty, and its mean scores of both networks.

    Args:
        critic (nn.Module): D, (N, C, H, W) -> (N,).
        student, teacher (Tensor): (N, C, H, W), without gradients.
        gan_type (str): ``'wgan-gp'``: ``E[D(student)] - E[D(teacher)]``; ``'hinge'``:
            ``E[max(0, 1 - D(teacher))] + E[max(0, 1 + D(student))]``.

    Returns:
        tuple: the loss, ``E[D(student)]`` and ``E[D(teacher)]``.
    """
    real, fake = critic(teacher), critic(student)
    if gan_type == 'hinge':
        loss = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    else:
        loss = fake.mean() - real.mean()
    return loss, fake.mean(), real.mean()


@MODELS.register_module()
class SKDHolistic(PairObjective):
    """Structured knowledge distillation, holistic term: a critic tells the maps of both apart.

    Liu et al., CVPR 2019 and TPAMI 2020: a Wasserstein critic with spectral norm and
    self-attention, on a segmentor's logits before resizing. It learns in the same step as the
    student, from the same maps and by an optimiser of its own
    ([objectives](../objectives.md#an-optimiser-of-its-own)), and is not part of the saved student.

    Papers and code disagree: CVPR's critic takes the image and class probabilities
    (``condition_on_image=True, input='softmax'``), that of the released numbers
    (irfanICMLL/structure_knowledge_distillation) logits alone, the default. IFVD's code has weights
    of 0.001 and 0.1 and Adam: ``student_factor=0.01``,
    ``optimizer=dict(type='Adam', lr=4e-4, betas=(0.9, 0.99))``. CIRKD's SKD has
    ``gan_type='hinge'``.

    Where maps of 80 or more cells a side have several scores, an image's score is their mean, in
    losses and penalty; the code's penalty has their sum, and so a target that depends on the crop.

    Args:
        weight: 0.1, that of the student's term and of all of the critic's loss.
        student_factor (float): factor of the student's term within the weight.
        gan_type (str): ``'wgan-gp'`` or ``'hinge'``.
        penalty (float | None): factor of the gradient penalty; None is 10 for ``'wgan-gp'`` and 0
            for ``'hinge'``.
        input (str): input of the critic: ``'logits_bn'`` (logits, then its own BatchNorm),
            ``'tanh'`` (of logits; for few images on a GPU) or ``'softmax'``.
        condition_on_image (bool): the critic also takes the image.
        penalty_on (str): with the image, the penalty takes the gradient with respect to the
            ``'input'``, image included, as in the code, or to the ``'map'``.
        enlarge (bool): maps of less than 64 cells a side, the critic's smallest input, are enlarged
            in proportion (bilinear); ``False`` refuses them.
        width (int): of the critic's first layer, 64 as published; at least 2. A narrow critic is
            for small data and slow machines.
        optimizer (dict | None): the critic's; None is the code's SGD, learning rate 4e-4, momentum
            0.9, weight decay 5e-4. It follows the run's ``param_scheduler``.
        student, teacher, teacher_name, learner, resize: see :class:`~mmkd.objective.PairObjective`.

    Raises:
        ValueError: options out of range; unequal or single class count; a head that classifies
            neither pixels nor masks; more than one map; small maps with ``enlarge=False``.
    """

    default_weight = 0.1
    zero_at_equality = False
    adversarial = True
    own_losses = ('loss_critic',)
    term_factors = {'loss_fool': 'student_factor'}
    label_free = False
    families = ('segmentor',)

    def __init__(
        self,
        student: Taps = None,
        teacher: Taps = None,
        weight: Any = None,
        teacher_name: str | list[str] | None = None,
        student_factor: float = 1.0,
        gan_type: str = 'wgan-gp',
        penalty: float | None = None,
        input: str = 'logits_bn',
        condition_on_image: bool = False,
        penalty_on: str = 'input',
        enlarge: bool = True,
        width: int = 64,
        optimizer: Mapping[str, Any] | None = None,
        resize: str | None = None,
        learner: str = 'student',
    ) -> None:
        super().__init__(student, teacher, weight, teacher_name, None, resize, learner=learner)
        name = 'SKDHolistic'
        self.student_factor = check_number(name, 'student_factor', student_factor, 0)
        self.gan_type = check_choice(name, 'gan_type', gan_type, ('wgan-gp', 'hinge'))
        penalty = 10.0 * (self.gan_type == 'wgan-gp') if penalty is None else penalty
        self.penalty = check_number(name, 'penalty', penalty, 0)
        self.input = check_choice(name, 'input', input, _FIRST)
        self.condition_on_image = condition_on_image
        self.penalty_on = check_choice(name, 'penalty_on', penalty_on, ('input', 'map'))
        self.enlarge = enlarge
        self.width = check_number(name, 'width', width, 2, whole=True)
        self.optimizer = dict(_OPTIMIZER if optimizer is None else optimizer)
        self.classes = 0
        self.told = False

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        segmentor.bind_logits(self, student, teacher)
        self.classes = segmentor.classes(student)

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        unknown = [Level((self.classes, 1, 1), None)]
        student, teacher = student or unknown, teacher or unknown
        super().setup(student, teacher)
        if len(self.pairs) != 1:
            raise ValueError(
                f'SKDHolistic takes one map of each network, but its taps give {len(self.pairs)}.'
            )
        self.classes = student[0].channels
        first = _FIRST[self.input](self.classes)
        self.critic = Critic(self.classes, 3 * self.condition_on_image, first, self.width)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        student, teacher = self.inputs(trace)
        loss_fool = self.student_factor * fool(self.critic, student)
        student = student.detach()
        loss, fake, real = contest(self.critic, student, teacher, self.gan_type)
        result = dict(loss_fool=loss_fool, score_student=fake, score_teacher=real)
        if self.penalty:
            channels = self.classes if self.penalty_on == 'map' else None
            result['penalty'] = gradient_penalty(self.critic, student, teacher, channels)
            loss = loss + self.penalty * result['penalty']
        return result | dict(loss_critic=loss)

    def inputs(self, trace: Trace) -> list[Tensor]:
        """Inputs of the critic from student and teacher, (N, K, H, W) or (N, K + 3, H, W)."""
        maps = self._large_enough(*self.maps(trace)[0])
        if self.input == 'softmax':
            maps = [x.softmax(1) for x in maps]
        if self.condition_on_image:
            image = resize(trace.inputs.float(), maps[0].shape[2:], self.align_corners)
            maps = [torch.cat((x, image), 1) for x in maps]
        return maps

    def _large_enough(self, *maps: Tensor) -> list[Tensor]:
        h, w = maps[0].shape[2:]
        least = min(h, w)
        if least >= LEAST_SIDE:
            return list(maps)
        if not self.enlarge:
            raise ValueError(
                f'SKDHolistic: logits of {h} x {w} cells are too small for the critic, which needs '
                f'{LEAST_SIDE} x {LEAST_SIDE}. Set enlarge=True, or train on larger crops.'
            )
        size = (-(-h * LEAST_SIDE // least), -(-w * LEAST_SIDE // least))
        if not self.told:
            self.told = True
            grown = f'{h} x {w} to {size[0]} x {size[1]}'
            print_log(f'SKDHolistic enlarges logits of {grown}.', 'current')
        return [resize(x, size, self.align_corners) for x in maps]

    def describe(self) -> list[str]:
        image = ' and the image' * self.condition_on_image
        return [f'critic of {self.classes} channels ({self.input}){image}, {self.gan_type}']
