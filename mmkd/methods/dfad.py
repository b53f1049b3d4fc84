"""DFAD: a generator looks for images on which student and teacher differ, without any data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from mmkd.objective import Taps
from mmkd.registry import MODELS
from mmkd.rows.generator_objective import GeneratorObjective
from mmkd.tap import Trace

_OPTIMIZER = dict(type='Adam', lr=1e-3)


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
        size (int | list[int]): height and width of the images, multiples of 4.
        latent (int): numbers in z.
        width (int): channels of the generator's first maps.
        optimizer (dict | None): the generator's; None is Adam, learning rate 1e-3. It follows the
            run's ``param_scheduler``.
        seed (int): of the noise.
        student, teacher, weight, teacher_name: see :class:`~mmkd.objective.Objective`; taps show
            logits.

    Raises:
        ValueError: options out of range; no classifiers of equal classes, or of images of unequal
            channels.
    """

    def __init__(
        self,
        *taps: Taps,
        size: Any = 32,
        latent: int = 256,
        width: int = 128,
        optimizer: Mapping[str, Any] | None = None,
        seed: int = 0,
        **common: Any,
    ) -> None:
        own = dict(size=size, latent=latent, width=width, seed=seed)
        super().__init__(*taps, **own, optimizer=optimizer or _OPTIMIZER, **common)

    def student_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        return F.l1_loss(student, teacher)

    def generator_losses(self, images: Tensor, trace: Trace) -> dict[str, Tensor]:
        teacher = self.asked_teacher(images, trace)[self.teacher_taps[0]][0]
        return {'loss_generator': -F.l1_loss(self.asked_student(images, trace), teacher)}
