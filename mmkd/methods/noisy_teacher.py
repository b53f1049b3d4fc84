"""NoisyTeacher: mean squared error to logits with multiplicative Gaussian noise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmkd.functional.logit_distances import half_squared_error
from mmkd.generators import step_generator
from mmkd.levels import Level
from mmkd.objective import RESIZE, Objective, Taps
from mmkd.options import check_choice, check_number
from mmkd.registry import MODELS
from mmkd.rows import logits
from mmkd.tap import Trace


def perturb(teacher: Tensor, noise: Tensor) -> Tensor:
    """``(1 + xi) z_t`` with xi (R, 1) of a sample or (R, K) of a logit; 0 is no noise."""
    return teacher * (1 + noise)


@MODELS.register_module()
class NoisyTeacher(Objective):
    """Deep model compression: distilling knowledge from noisy teachers.

    Sau and Balasubramanian, 2016: ``1 / (2 R) * sum_r ||z_s - (1 + m_r xi) z_t||^2`` where m_r is 1
    with probability alpha and xi normal with deviation sigma. In the mean that is L2Logit plus
    ``alpha sigma^2 / 2 * mean ||z_t||^2``, a constant. Public implementations multiply by the noise
    alone, or mix probabilities and log-probabilities; this is the paper's loss.

    Args:
        alpha (float): share of rows that are perturbed, in [0, 1].
        sigma (float): standard deviation of the noise.
        noise (str): xi is one number per row (``'sample'``) or per logit (``'logit'``); the paper
            can be read both ways.
        seed (int): of the noise, which depends on it, on the iteration and on the rank only.
        resize (str | None): for pixels, see :class:`~mmkd.objective.PairObjective`.
        student, teacher, weight, teacher_name: see :class:`~mmkd.objective.Objective`; no taps on
            two-stage detectors.

    Raises:
        ValueError: options out of range; models without comparable class logits.
    """

    default_weight = 0.1
    zero_at_equality = False
    over_scales = True
    families = logits.KINDS

    def __init__(
        self,
        *taps: Taps,
        alpha: float = 0.5,
        sigma: float = 0.5,
        noise: str = 'sample',
        seed: int = 0,
        resize: str | None = None,
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        self.resize = check_choice('NoisyTeacher', 'resize', resize, RESIZE)
        self.alpha = check_number('NoisyTeacher', 'the share alpha', alpha, 0, 1)
        self.sigma = check_number('NoisyTeacher', 'sigma', sigma, 0)
        self.noise = check_choice('NoisyTeacher', 'noise', noise, ('sample', 'logit'))
        self.seed, self.kind = check_number('NoisyTeacher', 'seed', seed, 0, whole=True), ''

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        self.kind = logits.bind_rows(self, student, teacher)

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        logits.check_strides(self, self.kind, student, teacher)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        rows = logits.rows(trace, self, self.kind)
        if not len(rows.student):
            return {'loss': rows.student.sum() * 0.0}
        noise = self.draw(rows.teacher, trace.progress.iteration)
        return {'loss': half_squared_error(rows.student, perturb(rows.teacher, noise))}

    def draw(self, teacher: Tensor, iteration: int) -> Tensor:
        """xi of one step, (R, 1) or (R, K), 0 in unperturbed rows."""
        generator = step_generator(self.seed, iteration, device=teacher.device)
        options: dict = dict(generator=generator, device=teacher.device)
        perturbed = torch.rand(len(teacher), 1, **options) < self.alpha
        columns = 1 if self.noise == 'sample' else teacher.shape[1]
        return torch.randn(len(teacher), columns, **options) * self.sigma * perturbed
