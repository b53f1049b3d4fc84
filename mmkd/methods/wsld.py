"""WSLD: cross entropy to soft labels, with a weight for each sample."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.levels import Level
from mmkd.objective import RESIZE, Objective, Taps
from mmkd.options import check_choice, check_temperature
from mmkd.registry import MODELS
from mmkd.rows import logits
from mmkd.tap import Trace


def soft_label_weights(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    """``1 - exp(-CE(z_s, y) / CE(z_t, y))`` of each row, detached; (R, K) and (R,) -> (R,)."""
    own, wanted = (
        F.cross_entropy(z.detach(), target, reduction='none') for z in (student, teacher)
    )
    return 1 - (-own / (wanted + 1e-7)).exp()


def soft_cross_entropy(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    """``- tau^2 * sum_k p_t log p_s`` of each row, p = softmax(z / tau); (R, K) -> (R,)."""
    return -((teacher / tau).softmax(1) * (student / tau).log_softmax(1)).sum(1) * tau**2


@MODELS.register_module()
class WSLD(Objective):
    """Rethinking soft labels: weighted soft labels for a bias-variance trade-off.

    Zhou et al., ICLR 2021, eqs. 8-10: ``mean_r w_r * CE(p_t, p_s) * tau^2`` with
    ``w_r = 1 - exp(-CE(z_s, y) / CE(z_t, y))``. Compared with
    bellymonster/Weighted-Soft-Label-Distillation, whose cross entropy (not divergence) is kept: it
    has the same gradient and is not 0 at equality. On a two-stage detector's sampled RoIs, a
    segmentor's labelled pixels, or images.

    Args:
        tau (float): temperature.
        resize (str | None): for pixels, see :class:`~mmkd.objective.PairObjective`.
        student, teacher, weight, teacher_name: see :class:`~mmkd.objective.Objective`; no taps on
            two-stage detectors.

    Raises:
        ValueError: temperature not above 0; models without comparable class logits; no labels.
    """

    default_weight = 2.5
    zero_at_equality = False
    scheduled = ('tau',)
    over_scales = True
    families = logits.KINDS

    def __init__(
        self,
        *taps: Taps,
        tau: float = 2.0,
        resize: str | None = None,
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        self.resize = check_choice('WSLD', 'resize', resize, RESIZE)
        self.tau = check_temperature('WSLD', tau)
        self.kind = ''

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        self.kind = logits.bind_rows(self, student, teacher)

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        logits.check_strides(self, self.kind, student, teacher)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        rows = logits.rows(trace, self, self.kind)
        if not len(rows.student):
            return {'loss': rows.student.sum() * 0.0}
        distance = soft_cross_entropy(rows.student, rows.teacher, self.tau)
        weight = soft_label_weights(*rows)
        return {'loss': (weight * distance).mean(), 'soft_label_weight': weight.mean()}
