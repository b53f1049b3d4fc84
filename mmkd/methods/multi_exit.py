"""MultiExit: distillation from the last exit to all earlier ones, with temperature annealing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from mmkd.functional.logit_distances import weighted_cross_entropy
from mmkd.levels import Level
from mmkd.models.image_classifier import soft_or_hard_target
from mmkd.objective import Objective, Taps
from mmkd.options import check_number
from mmkd.registry import MODELS
from mmkd.rows.exits import answers, bind_exits, cross_entropies, make_exits, sizes_of
from mmkd.tap import Trace
from mmkd.task_weight import factor_of


def soft_targets(exits: Sequence[Tensor], last: Tensor, tau: Tensor | float) -> Tensor:
    """``tau^2 sum_m H(p_M, p_m)``, p = softmax(z / tau), mean over rows.

    Args:
        exits (Sequence[Tensor]): logits (N, K) of all exits before the last.
        last (Tensor): z_M (N, K), the target.
        tau (Tensor | float): temperature.
    """
    losses = (weighted_cross_entropy(z / tau, last / tau) for z in exits)
    return tau**2 * sum(loss.mean() for loss in losses)


def annealed(
    tau: Tensor, logits: Tensor, mu: float, multiplier: float = 1.05, cap: float = 20.0
) -> Tensor:
    """The next temperature: ``multiplier * tau`` if the mean of max p is above mu; at most ``cap``.

    The mean is over all images (N, K) of all ranks.
    """
    sure = (logits / tau).softmax(-1).amax(-1)
    seen = torch.stack((sure.sum(), sure.new_tensor(float(len(sure)))))
    all_reduce(seen)
    return torch.where(seen[0] > mu * seen[1], (tau * multiplier).clamp(max=cap), tau)


@MODELS.register_module()
class MultiExit(Objective):
    """Distillation-based training for multi-exit architectures, for classifiers.

    Phuong and Lampert, ICCV 2019, section 3, and their code mary-phuong/multiexit-distillation:
    ``g [(1 - c) sum_m CE_m + c T^2 sum_{m < M} H(p_M(T), p_m(T))]``. The last exit M is the
    network's own: its CE is the student's own loss, so ``task_weight`` must be ``g (1 - c)``; the
    first step says so. The other exits are as BYOT's and are saved under ``objectives.``;
    ``mmkd.Exits`` makes an any-exit network of both.

    T starts at 1 and grows by ``multiplier`` in each step in which the last exit's largest
    probability at T is above ``mu`` in the mean over all ranks, up to ``cap``. It is in the log,
    and is resumed.

    Args:
        cuts (str | list[str] | None): taps at the outputs of stages, shallowest first; all stages
            but the last if there are none.
        c (float): share of distillation, from 0 to 1. With 1 the last exit learns nothing, so its
            parameters must be frozen.
        mu (float): bound of the mean largest probability, above 1 / K and at most 1.
        multiplier (float): of the temperature, at least 1; with 1 it stays 1.
        cap (float): largest temperature.
        scale (float | None): g; ``None`` is 10 / M, as in the code.
        weight, learner: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: options out of range; no classifier, or a single class; ``c=1`` for a network
            that is to be trained; ``mu`` that no prediction falls below; another ``task_weight``;
            cuts that show no stage, the last one, or not one deeper than the other.
    """

    needs_teacher = False
    zero_at_equality = False
    rank_invariant = True
    term_factors = {'loss_kd': 'c'}
    families = ('classifier',)

    def __init__(
        self,
        cuts: Taps = None,
        weight: Any = None,
        c: float = 0.5,
        mu: float = 0.5,
        multiplier: float = 1.05,
        cap: float = 20.0,
        scale: float | None = None,
        learner: str = 'student',
    ) -> None:
        super().__init__(cuts, weight=weight, learner=learner)
        self.cuts = self.student_taps
        self.c = check_number('MultiExit', 'c', c, 0, 1)
        self.mu = check_number('MultiExit', 'mu', mu, 0, 1)
        self.multiplier = check_number('MultiExit', 'multiplier', multiplier, 1)
        self.cap = check_number('MultiExit', 'cap', cap, 1)
        self.scale = check_number('MultiExit', 'scale', scale, above=0, optional=True)
        self.classes = 0
        self.exits = nn.ModuleList()
        self.temperature: Tensor
        self.register_buffer('temperature', torch.ones(()))

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        bind_exits(self, student)
        self.classes = int(student.head.fc.out_features)
        if self.mu * self.classes <= 1:
            raise ValueError(
                f'MultiExit: with mu={self.mu} the temperature would grow for ever, because the '
                f'largest of {self.classes} probabilities is at least 1 / {self.classes}; set mu '
                'above that.'
            )
        if self.c == 1 and any(p.requires_grad for p in student.head.parameters()):
            raise ValueError(
                'MultiExit: with c=1 the last exit, which teaches the others, learns nothing '
                'itself; set c below 1, or load a trained student and freeze it.'
            )

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        self.exits.extend(make_exits(self, student, self.classes))
        self.scale = self.scale or 10 / (len(self.exits) + 1)

    def check_task_weight(self, task_weight: float | Mapping[str, float]) -> None:
        """Refuse a factor of the learner's own loss other than ``scale * (1 - c)``."""
        wanted = self.scale * (1 - self.c)
        found = factor_of(task_weight, 'loss_cls') if self.learner == 'student' else 1.0
        if abs(found - wanted) <= 1e-3 * max(wanted, 1):
            return
        if self.learner != 'student':
            raise ValueError(
                f"MultiExit: the own loss of the peer '{self.learner}' is that of its last exit "
                f'and has the factor 1, but scale * (1 - c) = {wanted:.4g}; set scale and c so '
                'that it is 1.'
            )
        raise ValueError(
            f"MultiExit: the student's own loss is that of the last exit, whose factor is "
            f'scale * (1 - c) = {wanted:.4g}; set task_weight={wanted:.4g} in the model, found '
            f'{task_weight!r}, or another scale.'
        )

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        found = answers(trace, self.cuts, self.exits)
        target = soft_or_hard_target(trace.samples, self.classes, found.last.device)
        hard = cross_entropies(trace, found.logits, target)
        last, tau = found.last.detach(), self.temperature.clone()
        result = {
            'loss_ce': self.scale * (1 - self.c) * sum(hard),
            'loss_kd': self.scale * self.c * soft_targets(found.logits, last, tau),
            'temperature': tau,
        }
        if self.training:
            self.temperature.copy_(annealed(tau, last, self.mu, self.multiplier, self.cap))
        return result

    def describe(self) -> list[str]:
        """The exits and their sizes, and the factor of the student's own loss."""
        return [*sizes_of(self.exits), f'task_weight must be {self.scale * (1 - self.c):.4g}']
