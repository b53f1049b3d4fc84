"""BYOT: self-distillation from the last exit of a classifier to exits on its inner stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.functional.logit_distances import soft_kl, weighted_cross_entropy
from mmkd.levels import Level
from mmkd.models.image_classifier import soft_or_hard_target
from mmkd.objective import Objective, Taps
from mmkd.options import check_choice, check_number, check_temperature
from mmkd.registry import MODELS
from mmkd.rows.exits import answers, bind_exits, cross_entropies, make_exits, sizes_of
from mmkd.tap import Trace


def soft_label(student: Tensor, teacher: Tensor, tau: float, variant: str = 'paper') -> Tensor:
    """``tau^2 KL(p_t || p_s)`` at tau, or in the ``'code'`` ``-sum p_t log p_s``; mean over rows.

    Args:
        student, teacher (Tensor): logits (N, K); the teacher is the target.
    """
    if variant == 'code':
        return weighted_cross_entropy(student, teacher, tau=tau).mean()
    return soft_kl(student, teacher, tau).mean()


def feature_distance(student: Tensor, teacher: Tensor, variant: str = 'paper') -> Tensor:
    """Mean over N of ``||f_s - f_t||``, or in the ``'code'`` the norm of all N * D differences.

    Args:
        student, teacher (Tensor): features (N, D).
    """
    if variant == 'code':
        return torch.linalg.vector_norm(student - teacher)
    return torch.linalg.vector_norm(student - teacher, dim=1).mean()


@MODELS.register_module()
class BYOT(Objective):
    """Be your own teacher: improve the performance of convolutional networks via self distillation.

    Zhang et al., ICCV 2019, and their code ArchipLab-LinfengZhang/pytorch-self-distillation-final.
    An exit behind each cut has a separable block for every later stage, pooling and a linear layer.
    It learns from labels and from the network's own exit, which gets no gradient from it; the loss
    is ``sum_i [(1 - alpha) CE_i + alpha KD_i + beta ||F_i - F_K||]``, and the student's own loss is
    that of the last exit. Exits are saved beside the student, under ``objectives.``;
    ``mmkd.Exits`` makes an any-exit network of both.

    ``variant='code'``: soft cross entropy without tau^2 instead of the KL divergence; a learnt
    linear layer before each F_i, of the authors' journal version; the norm of the whole batch
    instead of a mean over images; no feature term for the deepest of the exits.

    Args:
        cuts (str | list[str] | None): taps at the outputs of stages, shallowest first; all stages
            but the last if there are none.
        alpha (float): share of the last exit's prediction in the target, from 0 to 1.
        beta (float): factor of the distance of pooled features.
        tau (float): temperature.
        variant (str): ``'paper'`` or ``'code'``.
        weight, learner: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: options out of range; no classifier, or a single class; cuts that show no stage,
            the last one, or not one deeper than the other.
    """

    needs_teacher = False
    zero_at_equality = False
    rank_invariant = True
    scheduled = ('beta', 'tau')
    term_factors = {'loss_kd': 'alpha', 'loss_feature': 'beta'}
    families = ('classifier',)

    def __init__(
        self,
        cuts: Taps = None,
        weight: Any = None,
        alpha: float = 0.3,
        beta: float = 0.03,
        tau: float = 3.0,
        variant: str = 'paper',
        learner: str = 'student',
    ) -> None:
        super().__init__(cuts, weight=weight, learner=learner)
        self.cuts = self.student_taps
        self.alpha = check_number('BYOT', 'alpha', alpha, 0, 1)
        self.beta = check_number('BYOT', 'beta', beta, 0)
        self.tau = check_temperature('BYOT', tau)
        self.variant = check_choice('BYOT', 'variant', variant, ('paper', 'code'))
        self.classes = 0
        self.exits, self.adapters = nn.ModuleList(), nn.ModuleList()

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        bind_exits(self, student)
        self.classes = int(student.head.fc.out_features)

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        self.exits.extend(make_exits(self, student, self.classes))
        if self.variant == 'code' and self.beta:
            width = self.exits[0].fc.in_features
            self.adapters.extend(nn.Linear(width, width) for _ in self.exits[:-1])

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        found = answers(trace, self.cuts, self.exits)
        target = soft_or_hard_target(trace.samples, self.classes, found.last.device)
        hard = cross_entropies(trace, found.logits, target)
        last = found.last.detach()
        soft = [soft_label(z, last, self.tau, self.variant) for z in found.logits]
        result = {
            'loss_ce': (1 - self.alpha) * sum(hard),
            'loss_kd': self.alpha * sum(soft),
        }
        if apart := self._apart(found.features, found.deepest.detach()):
            result['loss_feature'] = self.beta * sum(apart)
        return result

    def _apart(self, features: Sequence[Tensor], deepest: Tensor) -> list[Tensor]:
        if self.variant == 'code':  # there are no adapters if beta is 0
            pairs = zip(self.adapters, features, strict=False)
            features = [adapter(x) for adapter, x in pairs]
        return [feature_distance(x, deepest, self.variant) for x in features]

    def describe(self) -> list[str]:
        """The exits and their sizes."""
        return sizes_of(self.exits)
