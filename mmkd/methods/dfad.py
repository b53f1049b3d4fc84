"""DFAD: a generator maximises the difference of logits of student and teacher, without any data."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from mmkd.registry import MODELS
from mmkd.rows.generator_objective import GeneratorObjective
from mmkd.tap import Trace


@MODELS.register_module()
class DFAD(GeneratorObjective):
    """Data-free adversarial distillation.

    Fang et al., 2019, and their code VainF/Data-Free-Adversarial-Distillation. A generator makes
    images on which the logits differ, the student learns to agree on them:
    ``L_S = mean |z_S - z_T|`` and ``L_G = -mean |z_S - z_T|``. The code has five steps of the
    student, each on new images, and one of the generator::

        trains=dict(student=dict(every=6, count=5), objectives=dict(every=6, first=5))

    Without turns both learn in every step. No image is read
    ([without any data](../data-free.md)): the data set is ``mmkd.NoImages``, and the student's own
    losses are left out (``task_weight=None``). Logits are compared as they are, so their scales
    should be alike. Batches should be large; the code has 256.

    Args:
        size, latent, width, optimizer, seed, student, teacher, weight, teacher_name: see
            :class:`~mmkd.rows.generator_objective.GeneratorObjective`; 256 numbers in z, and a
            learning rate of 1e-3, unless they are set.

    Raises:
        ValueError: options out of range; no classifiers of equal classes, or of images of unequal
            channels.
    """

    usual_latent = 256

    def student_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        return F.l1_loss(student, teacher)

    def generator_losses(self, images: Tensor, trace: Trace) -> dict[str, Tensor]:
        teacher = self.asked_teacher(images, trace)[self.teacher_taps[0]][0]
        return {'loss_generator': -F.l1_loss(self.asked_student(images, trace), teacher)}
