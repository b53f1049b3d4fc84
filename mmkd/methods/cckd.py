"""CCKD: kernel correlations (RBF) between the embeddings of a batch."""

from __future__ import annotations

from math import exp, factorial
from typing import Any

from torch import Tensor

from mmkd.functional.relations import at_least_float32, distances, unit
from mmkd.levels import Level
from mmkd.objective import Taps
from mmkd.options import check_choice, check_number
from mmkd.registry import MODELS
from mmkd.rows.instance_objective import InstanceObjective
from mmkd.rows.vectors import linear_layers

KERNELS = ('taylor', 'rbf', 'bilinear', 'mmd', 'neighbors')


def correlations(x: Tensor, kernel: str = 'taylor', gamma: float = 0.4, order: int = 2) -> Tensor:
    """Kernel of any two rows, which are scaled to length 1; (B, D) -> (B, B).

    Args:
        kernel (str): ``'rbf'`` is ``exp(-gamma |f_i - f_j|^2)``, ``'taylor'`` its expansion in
            ``f_i . f_j`` to the given order, ``'bilinear'`` that product itself, ``'mmd'`` the
            difference between the mean entries of the two.
    """
    x = unit(x)
    if kernel == 'rbf':
        return (-gamma * distances(x).square()).exp()
    if kernel == 'mmd':
        return distances(x.mean(1, keepdim=True))
    product = x @ x.T
    if kernel == 'bilinear':
        return product
    terms = [(2 * gamma) ** p / factorial(p) * product**p for p in range(order + 1)]
    return exp(-2 * gamma) * sum(terms)


def neighbor_error(student: Tensor, teacher: Tensor) -> Tensor:
    """``mean_i sum_d |delta_i| |delta_(i+1)|``, delta the difference of rows (B, D); no scaling."""
    delta = (at_least_float32(student) - at_least_float32(teacher)).abs()
    return (delta[:-1] * delta[1:]).sum() / max(len(delta) - 1, 1)


@MODELS.register_module()
class CCKD(InstanceObjective):
    """Correlation congruence for knowledge distillation.

    Peng et al., ICCV 2019: embeddings of both networks go through a linear layer each,
    which is trained, and ``|K_t - K_s|_F^2 / B^2`` compares their kernel matrices. The paper adds
    it to the cross entropy and KD, without which the two layers could agree on a constant. Batches
    come from ``mmkd.ClassUniformSampler`` or ``mmkd.SuperClassUniformSampler``.

    RepDistiller's CC is a different function, ``kernel='neighbors'``: it multiplies the errors of
    consecutive images of a batch.

    Without taps: the embeddings of two classifiers; with taps a vector, or a map averaged over
    places, of any model.

    On detectors the instances are objects, with features of the neck; on segmentors regions, with
    the features before the per-pixel classifier. The weight is that for classifiers.

    Args:
        weight: 0.003, for ``'neighbors'`` 0.02.
        kernel (str): ``'taylor'``, ``'rbf'``, ``'bilinear'``, ``'mmd'`` (see :func:`correlations`)
            or ``'neighbors'``.
        gamma (float): of the Gaussian ``exp(-gamma d^2)``.
        order (int): of its Taylor expansion.
        dim (int): outputs of the linear layers.
        train_both (bool): train the teacher's linear layer too, else only the student's.
        student, teacher, teacher_name, instances, gather: see
            :class:`~mmkd.rows.instance_objective.InstanceObjective`.

    Raises:
        ValueError: options out of range; not one layer per side; models that do not fit. One
            instance gives 0.
    """

    zero_at_equality = False

    def __init__(
        self,
        *taps: Taps,
        kernel: str = 'taylor',
        gamma: float = 0.4,
        order: int = 2,
        dim: int = 128,
        train_both: bool = True,
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        self.kernel = check_choice('CCKD', 'kernel', kernel, KERNELS)
        self.set_default_weight(0.02 if self.kernel == 'neighbors' else 0.003)
        self.dim = check_number('CCKD', 'dim', dim, 1, whole=True)
        self.gamma = check_number('CCKD', 'gamma', gamma, above=0)
        self.order = check_number('CCKD', 'order', order, 1, whole=True)
        self.train_both = train_both

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        layers = self.instances.setup(student, teacher)
        self.embed, self.embed_target = linear_layers(self, *layers, self.dim)
        self.embed_target.requires_grad_(self.train_both)

    def compare(self, student_rows: Tensor, teacher_rows: Tensor) -> Tensor:
        own, wanted = self.embed(student_rows), self.embed_target(teacher_rows)
        if len(own) < 2:
            return (own.sum() + wanted.sum()) * 0.0
        if self.kernel == 'neighbors':
            return neighbor_error(own, wanted)
        s, t = (correlations(x, self.kernel, self.gamma, self.order) for x in (own, wanted))
        return (t - s).square().mean()
