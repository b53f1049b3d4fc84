"""ZSKT: a generator maximises the KL divergence of student and teacher, without any data."""

from __future__ import annotations

from torch import Tensor

from mmkd.functional.logit_distances import mean_kl
from mmkd.registry import MODELS
from mmkd.rows.generator_objective import GeneratorObjective
from mmkd.tap import Trace


@MODELS.register_module()
class ZSKT(GeneratorObjective):
    """Zero-shot knowledge transfer via adversarial belief matching.

    Micaelli and Storkey, NeurIPS 2019, and their code polo5/ZeroShotKnowledgeTransfer. A generator
    makes images on which the student's probabilities are far from the teacher's, and the
    student learns them there: ``L_S = KL(p_T || p_S)`` and ``L_G = -KL(p_T || p_S)``. With one
    batch of noise the generator takes one step and then the student ten::

        trains=dict(objectives=dict(every=11), student=dict(every=11, first=1, count=10))

    The paper adds attention transfer, ``dict(type='mmkd.AT', weight=250)``, which does not train
    the generator. As in the code, KL is the mean over images and classes; 250 belongs to this
    mean. The teacher runs in each of the ten steps, and the gradients of the generator are not
    clipped (the code does at 5); the student's are by ``optim_wrapper``. The code's generator
    ends in a BatchNorm with parameters and without tanh.

    Without turns both learn in every step, on new noise. No image is read
    ([without any data](../data-free.md)): the data set is ``mmkd.NoImages``, and the student's own
    losses are left out (``task_weight=None``).

    Args:
        size, latent, width, optimizer, seed, student, teacher, weight, teacher_name: see
            :class:`~mmkd.rows.generator_objective.GeneratorObjective`; 100 numbers in z, and a
            learning rate of 1e-3, unless they are set.

    Raises:
        ValueError: options out of range; no classifiers of equal classes, or of images of unequal
            channels.
    """

    usual_latent = 100

    keeps_noise = True

    def student_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        return mean_kl(student, teacher, 1.0).mean()

    def generator_losses(self, images: Tensor, trace: Trace) -> dict[str, Tensor]:
        teacher = self.asked_teacher(images, trace)[self.teacher_taps[0]][0]
        return {'loss_generator': -mean_kl(self.asked_student(images, trace), teacher, 1.0).mean()}
