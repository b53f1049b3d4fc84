"""LogitStandardization: KD or DKD on standardised logits (z-score of each row)."""

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

_EPS = 1e-7
#: a deviation of logits that is nothing but rounding
_FLAT = 1e-6


def standardize(z: Tensor) -> Tensor:
    """``(z - mean_k z) / (std_k z + 1e-7)`` of each row (R, K), std unbiased.

    A row that does not vary becomes 0 and gets no gradient, which would be huge.
    """
    std = z.std(1, keepdim=True)
    return (z - z.mean(1, keepdim=True)) / (std + _EPS) * (std > _FLAT)


@MODELS.register_module()
class LogitStandardization(Objective):
    """Logit standardization in knowledge distillation: a z-score, then KD or DKD.

    Sun et al., CVPR 2024, eq. 11 and algorithm 1. Compared with
    sunshangquan/logit-standardization-KD: ``tau = 2``, weight 9, ``task_weight=0.1`` on CIFAR and 1
    on ImageNet. Scale and offset of a row do not matter. On a two-stage detector's sampled RoIs, a
    segmentor's labelled pixels, or images, of three or more outputs.

    Its gradient grows as the student's logits shrink: one that begins with small ones needs
    ``optim_wrapper=dict(clip_grad=dict(max_norm=5))``.

    Args:
        loss (str): ``'kd'`` gives ``loss``, ``'dkd'`` gives ``loss_target`` and ``loss_others``.
        tau (float): base temperature.
        alpha, beta (float): weights of DKD's terms.
        resize (str | None): for pixels, see :class:`~mmkd.objective.PairObjective`.
        student, teacher, weight, teacher_name: see :class:`~mmkd.objective.Objective`; no taps on
            two-stage detectors.

    Raises:
        ValueError: options out of range; models without comparable class logits.
    """

    default_weight = 9.0
    term_factors = {'loss_target': 'alpha', 'loss_others': 'beta'}
    scheduled = ('alpha', 'beta', 'tau')
    over_scales = True
    families = logits.KINDS

    def __init__(
        self,
        *taps: Taps,
        loss: str = 'kd',
        tau: float = 2.0,
        alpha: float = 1.0,
        beta: float = 8.0,
        resize: str | None = None,
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        self.resize = check_choice('LogitStandardization', 'resize', resize, RESIZE)
        owner = 'LogitStandardization'
        self.loss = check_choice(owner, 'loss', loss, ('kd', 'dkd'))
        self.tau = check_temperature(owner, tau)
        self.alpha = check_number(owner, 'alpha', alpha, 0)
        self.beta = check_number(owner, 'beta', beta, 0)
        self.kind = ''

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        self.kind = logits.bind_rows(self, student, teacher)
        if logits.class_count(student, self.kind) == 2:
            raise ValueError(
                'LogitStandardization: two standardised logits are always +-1, which has no '
                'gradient. Use KD for two classes.'
            )

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        logits.check_strides(self, self.kind, student, teacher)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        rows = logits.rows(trace, self, self.kind)
        keys = ('loss',) if self.loss == 'kd' else ('loss_target', 'loss_others')
        if not len(rows.student):
            return {key: rows.student.sum() * 0.0 for key in keys}
        student, teacher = standardize(rows.student), standardize(rows.teacher)
        if self.loss == 'kd':
            return {'loss': soft_kl(student, teacher, self.tau).mean()}
        target, others = decoupled_kl(student, teacher, rows.target, self.tau)
        return {'loss_target': self.alpha * target.mean(), 'loss_others': self.beta * others.mean()}
