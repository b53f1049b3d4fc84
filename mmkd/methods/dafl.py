"""DAFL: a generator makes images of all classes with confident predictions, without any data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.families import classifier
from mmkd.functional.gather import all_gather_rows
from mmkd.functional.logit_distances import soft_kl
from mmkd.objective import Taps
from mmkd.options import check_factors, check_temperature
from mmkd.registry import MODELS
from mmkd.rows.generator_objective import GeneratorObjective
from mmkd.tap import Tap, Trace

FACTORS = dict(one_hot=0.05, balance=5.0, activation=0.01)


def one_hot(teacher: Tensor) -> Tensor:
    """Cross entropy of logits (N, K) and their own largest class."""
    return F.cross_entropy(teacher, teacher.argmax(1))


def balance(teacher: Tensor) -> Tensor:
    """``sum_k p_k log10 p_k``, p the mean probabilities of logits (N, K); least if p is uniform."""
    p = teacher.softmax(1).mean(0)
    return (p * p.clamp(min=torch.finfo(p.dtype).tiny).log10()).sum()


def activation(features: Tensor) -> Tensor:
    """``-mean |f|`` of features (N, D)."""
    return -features.abs().mean()


@MODELS.register_module()
class DAFL(GeneratorObjective):
    """Data-free learning of student networks.

    Chen et al., ICCV 2019, and their code (huawei-noah/Data-Efficient-Model-Compression). A
    generator makes images of which the teacher is sure (``one_hot``), whose classes are equally
    frequent in a batch (``balance``) and that excite its features (``activation``):
    ``L_G = oh CE(z_T, argmax z_T) + ie sum p log10 p - a mean |f_T|``, p the mean probabilities of
    the batch, of all ranks. The student learns its answers to them, ``L_S = tau^2 KL(p_T || p_S)``,
    a mean over images. Both learn in every step. A batch should have many more images than there
    are classes, or some classes never come; the code has 1,024.

    The student does not take part in L_G, so that images on which it is wrong are not looked for.
    No image is read ([without any data](../data-free.md)): the data set is ``mmkd.NoImages``, and
    the student's own losses are left out (``task_weight=None``). CIFAR-100 has the factors 0.5, 20
    and 0.1.

    Args:
        factors (dict[str, float] | None): of the terms ``'one_hot'`` (oh, 0.05), ``'balance'``
            (ie, 5) and ``'activation'`` (a, 0.01).
        tau (float): temperature of the student's loss.
        size, latent, width, optimizer, seed, student, teacher, weight, teacher_name: see
            :class:`~mmkd.rows.generator_objective.GeneratorObjective`; 1,000 numbers in z, and a
            learning rate of 0.02, unless they are set.

    Raises:
        ValueError: options out of range; no classifiers of equal classes, or of images of unequal
            channels.
    """

    usual_latent = 1000
    usual_lr = 0.02
    zero_at_equality = False
    own_losses = tuple(f'loss_{term}' for term in FACTORS)
    term_factors = {f'loss_{term}': f'factors.{term}' for term in FACTORS}
    scheduled = ('tau',)

    def __init__(
        self,
        *taps: Taps,
        factors: Mapping[str, float] | None = None,
        tau: float = 1.0,
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        self.factors = check_factors('DAFL', factors, FACTORS)
        self.tau = check_temperature('DAFL', tau)

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        assert teacher is not None
        self.features = Tap.parse(classifier.embedding_tap(teacher))

    def student_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        return soft_kl(student, teacher, self.tau).mean()

    def generator_losses(self, images: Tensor, trace: Trace) -> dict[str, Tensor]:
        side = self.asked_teacher(images, trace, self.features)
        logits, features = side[self.teacher_taps[0]][0], side[self.features][-1]
        losses = dict(
            one_hot=one_hot(logits),
            balance=balance(all_gather_rows(logits)),
            activation=activation(features),
        )
        return {f'loss_{term}': self.factors[term] * loss for term, loss in losses.items()}
