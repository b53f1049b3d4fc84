"""ATGradient: L2 distance between the gradients of the cross entropy in the input image."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.families import classifier
from mmkd.objective import Objective
from mmkd.registry import MODELS
from mmkd.rows import logits
from mmkd.rows.input_gradients import input_gradients
from mmkd.tap import Trace


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
        student, teacher, weight, teacher_name: see :class:`~mmkd.objective.Objective`; taps show
            logits.

    Raises:
        ValueError: no classifiers of equal classes; no labels; images of unequal size.
    """

    needs_input_gradient = True
    asks_teacher = True
    families = ('classifier',)

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        logits.bind_images(self, student, teacher)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        target = classifier.labels(trace.samples, trace.inputs.device)
        pair = input_gradients(
            trace, self.student_taps[0], lambda z: F.cross_entropy(z, target, reduction='none')
        )
        return {'loss': gradient_distance(*pair)}
