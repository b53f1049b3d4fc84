"""PRDKD: DKD on logits that are standardised class by class over the batch."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mmkd.functional.logit_distances import decoupled_kl, soft_kl
from mmkd.levels import Level
from mmkd.objective import RESIZE, Objective, Taps
from mmkd.options import check_choice, check_number, check_temperature
from mmkd.registry import MODELS
from mmkd.rows import logits
from mmkd.tap import Trace

#: fewer rows give no useful statistics: with two, every column is +-1
FEWEST = 4


def reconstruct(
    z: Tensor, eps: float = 1e-6, unbiased: bool = False, detach_stats: bool = False
) -> Tensor:
    """``(z - U) / sqrt(V + eps)`` with mean U and variance V of each column over rows, (R, K).

    Args:
        unbiased (bool): V divides by R - 1 instead of R.
        detach_stats (bool): no gradient through U and V.
    """
    mean, variance = z.mean(0), z.var(0, correction=int(unbiased))
    if detach_stats:
        mean, variance = mean.detach(), variance.detach()
    return (z - mean) / (variance + eps).sqrt()


@MODELS.register_module()
class PRDKD(Objective):
    """Decoupled knowledge distillation after perception reconstruction.

    Zhu and Zhu, Computer Systems and Applications 2025, eqs. 4-13 (PR-DKD): student's and teacher's
    logits are standardised class by class over the batch, then compared as DKD does. The paper
    gives alpha 1 and beta 8; temperature, variance, warm-up and the factor tau^2 are not given
    there and are our choice: start with ``weight=dict(value=1, warmup=20 / 240)``. Statistics are
    those of the process's own batch. On images, a two-stage detector's sampled RoIs (foreground and
    background alike), or a segmentor's labelled pixels. The paper's eleven pairs of networks on
    CIFAR-100 are ``configs/prdkd_cls_*_cifar100.py``.

    Args:
        loss (str): ``'dkd'``, or ``'kd'``: plain KD of the standardised logits, the paper's KD with
            perception reconstruction.
        alpha, beta (float): weights of target and non-target term; of ``'kd'`` alpha alone.
        tau (float): temperature.
        tau_square (bool): multiply by tau^2.
        unbiased, detach_stats (bool): see :func:`reconstruct`.
        eps (float): see :func:`reconstruct`.
        resize (str | None): for pixels, see :class:`~mmkd.objective.PairObjective`.
        student, teacher, weight, teacher_name: see :class:`~mmkd.objective.Objective`; no taps on
            two-stage detectors.

    Raises:
        ValueError: options out of range; models without comparable class logits. A batch of fewer
            than four rows gives 0: there is nothing to standardise with.
    """

    term_factors = {'loss_target': 'alpha', 'loss_others': 'beta', 'loss_kd': 'alpha'}
    scheduled = ('alpha', 'beta', 'tau')
    over_scales = True
    families = logits.KINDS

    def __init__(
        self,
        *taps: Taps,
        loss: str = 'dkd',
        alpha: float = 1.0,
        beta: float = 8.0,
        tau: float = 4.0,
        tau_square: bool = True,
        unbiased: bool = False,
        detach_stats: bool = False,
        eps: float = 1e-6,
        resize: str | None = None,
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        self.resize = check_choice('PRDKD', 'resize', resize, RESIZE)
        self.loss = check_choice('PRDKD', 'loss', loss, ('dkd', 'kd'))
        self.alpha = check_number('PRDKD', 'alpha', alpha, 0)
        self.beta = check_number('PRDKD', 'beta', beta, 0)
        self.tau = check_temperature('PRDKD', tau)
        self.eps = check_number('PRDKD', 'eps', eps, 0)
        self.tau_square, self.unbiased, self.detach_stats = tau_square, unbiased, detach_stats
        self.kind = ''

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        self.kind = logits.bind_rows(self, student, teacher)
        if self.loss == 'dkd':
            logits.check_more_than_two('PRDKD', student, self.kind, self.beta)

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        logits.check_strides(self, self.kind, student, teacher)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        rows = logits.rows(trace, self, self.kind)
        if len(rows.student) < FEWEST:
            zero = rows.student.sum() * 0.0
            if self.loss == 'kd':
                return {'loss_kd': zero}
            return {'loss_target': zero, 'loss_others': zero}
        student, teacher = (
            reconstruct(z, self.eps, self.unbiased, self.detach_stats)
            for z in (rows.student, rows.teacher)
        )
        scale = 1.0 if self.tau_square else 1 / self.tau**2
        if self.loss == 'kd':
            kl = soft_kl(student, teacher, self.tau).mean()
            return {'loss_kd': scale * self.alpha * kl}
        target, others = decoupled_kl(student, teacher, rows.target, self.tau)
        return {
            'loss_target': scale * self.alpha * target.mean(),
            'loss_others': scale * self.beta * others.mean(),
        }
