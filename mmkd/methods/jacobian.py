"""Jacobian: L2 distance between the gradients of the logits in the input image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.families import classifier
from mmkd.generators import step_generator
from mmkd.objective import Objective, Taps
from mmkd.options import check_choice, check_number
from mmkd.registry import MODELS
from mmkd.rows import logits
from mmkd.rows.input_gradients import input_gradients
from mmkd.tap import Trace


def row_distance(
    student: Tensor, teacher: Tensor, normalize: bool = True, variant: str = 'paper'
) -> Tensor:
    """``mean_n ||n(J_s) - n(J_t)||^2`` of (N, 3, H, W), n scaling to length 1; zeros stay zero.

    ``variant='code'`` takes the mean over pixels, too, ``variant='length'`` the mean of the plain
    length, without the square.
    """
    s, t = student.flatten(1), teacher.flatten(1)
    if normalize:
        s, t = F.normalize(s), F.normalize(t)
    squared = (s - t).square()
    if variant == 'code':
        return squared.mean()
    squared = squared.sum(1)
    return (squared + 1e-24).sqrt().mean() if variant == 'length' else squared.mean()


@MODELS.register_module()
class Jacobian(Objective):
    """Knowledge transfer with Jacobian matching.

    Srinivas and Fleuret, ICML 2018, eq. 6, and Sobolev training (Czarnecki et al., 2017). Matching
    a squared error under Gaussian noise on the pixels is matching outputs and Jacobians, up to a
    term that vanishes for piecewise linear networks. It differentiates twice and runs the teacher
    once more; use it beside KD, or beside L2Logit, which with it is Sobolev training. No published
    weight belongs to a mean over images alone: Knowledge-Distillation-Zoo takes 20 with
    ``variant='code'``.

    Args:
        outputs (str): the row of the Jacobian: of the ``'label'``'s logit, of the ``'teacher'``'s
            top class, or of a random ``'projection'`` of all logits, an unbiased estimate of the
            whole Jacobian's squared distance.
        normalize (bool): scale each row to length 1.
        variant (str): ``'paper'``: squared length, mean over images; ``'code'``: mean over pixels,
            too, to which the weight of 20 belongs and is the default; ``'length'``: without the
            square.
        seed (int): of the projection, which depends on it, on the iteration and on the rank only.
        student, teacher, weight, teacher_name: see :class:`~mmkd.objective.Objective`; taps show
            logits.

    Raises:
        ValueError: an unknown choice; no classifiers of equal classes; images of unequal size.
    """

    needs_input_gradient = True
    asks_teacher = True
    families = ('classifier',)

    def __init__(
        self,
        *taps: Taps,
        outputs: str = 'label',
        normalize: bool = True,
        variant: str = 'paper',
        seed: int = 0,
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        choices = ('label', 'teacher', 'projection')
        self.outputs = check_choice('Jacobian', 'outputs', outputs, choices)
        self.normalize = normalize
        variants = ('paper', 'code', 'length')
        self.variant = check_choice('Jacobian', 'variant', variant, variants)
        self.set_default_weight(20.0 if self.variant == 'code' else 1.0)
        self.seed = check_number('Jacobian', 'seed', seed, 0, whole=True)

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        logits.bind_images(self, student, teacher)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        direction = self.direction(trace)
        pair = input_gradients(trace, self.student_taps[0], lambda z: (z * direction).sum(1))
        return {'loss': row_distance(*pair, self.normalize, self.variant)}

    def direction(self, trace: Trace) -> Tensor:
        """v (N, K) of the row ``d(v . z) / dx``."""
        wanted = trace.teacher[self.teacher_taps[0]][0].detach().float()
        if self.outputs == 'projection':
            step, device = trace.progress.iteration, wanted.device
            generator = step_generator(self.seed, step, device=device)
            return torch.randn(wanted.shape, generator=generator, device=device)
        chosen = wanted.argmax(1)
        if self.outputs == 'label':
            chosen = classifier.labels(trace.samples, wanted.device)
        return F.one_hot(chosen, wanted.shape[1]).to(wanted.dtype)
