"""ATGradient: L2 distance between the gradients of the cross entropy in the input image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.families import classifier
from mmkd.objective import Objective, Taps
from mmkd.options import check_choice
from mmkd.registry import MODELS
from mmkd.rows import logits
from mmkd.rows.input_gradients import input_gradients
from mmkd.tap import Trace
from mmkd.untouched import buffers_aside


def gradient_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """``1 / 2 * mean_n ||J_s - J_t||`` of (N, 3, H, W); 0 without NaN where they are equal."""
    squared = (student - teacher).square().flatten(1).sum(1)
    return (squared + 1e-24).sqrt().mean() / 2


@MODELS.register_module()
class ATGradient(Objective):
    """Attention transfer, gradient based: match input gradients of the cross entropy.

    Zagoruyko and Komodakis, ICLR 2017, eq. 5, with ``J = dCE(z, y) / dx`` of each image. There is
    no public code, and the paper finds it weaker than activation-based AT; the weight has to be
    tuned. It differentiates twice and runs the teacher once more. Where BatchNorm makes images
    depend on each other J is the gradient of the batch's loss.

    Args:
        against (str): ``'teacher'`` matches the teacher's gradients; ``'flip'`` is the paper's
            symmetry without a teacher, ``J(x)`` against the flipped ``J(flip(x))``, for which the
            student runs once more, on flipped images.
        student, teacher, weight, teacher_name: see :class:`~mmkd.objective.Objective`; taps show
            logits.

    Raises:
        ValueError: an unknown choice; no classifiers of equal classes; no labels; images of unequal
            size.
    """

    needs_input_gradient = True
    asks_teacher = True
    families = ('classifier',)

    def __init__(self, *taps: Taps, against: str = 'teacher', **common: Any) -> None:
        super().__init__(*taps, **common)
        self.against = check_choice('ATGradient', 'against', against, ('teacher', 'flip'))
        if self.against == 'flip':
            self.needs_teacher = self.zero_at_equality = False
            self.teacher_taps = ()

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        logits.bind_images(self, student, teacher)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        target = classifier.labels(trace.samples, trace.inputs.device)

        def score(z: Tensor) -> Tensor:
            return F.cross_entropy(z, target, reduction='none')

        if self.against == 'teacher':
            pair = input_gradients(trace, self.student_taps[0], score)
            return {'loss': gradient_distance(*pair)}
        own = score(trace.student[self.student_taps[0]][0]).sum()
        (gradient,) = torch.autograd.grad(own, trace.inputs, create_graph=True)
        pixels = trace.inputs.detach().flip(3).requires_grad_()
        model = trace.student.model
        with buffers_aside(model):
            scores = score(model(pixels, mode='tensor').float())
        (mirrored,) = torch.autograd.grad(scores.sum(), pixels, create_graph=True)
        return {'loss': gradient_distance(gradient, mirrored.flip(3))}
