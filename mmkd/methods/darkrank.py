"""DarkRank: list-wise ranking loss on the similarities within a batch."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import torch
from torch import Tensor

from mmkd.functional.relations import distances, unit
from mmkd.objective import Taps
from mmkd.options import check_choice, check_number
from mmkd.registry import MODELS
from mmkd.rows.instance_objective import InstanceObjective

TRANSFERS = ('hard', 'soft')
#: lists of all permutations are kept short: 6! = 720
_LONGEST = 6


def log_likelihood(scores: Tensor) -> Tensor:
    """Log probability of the order given, ``sum_i s_i - log sum_(k >= i) exp s_k``, (..., L)."""
    # In float64: the gradient of a cumulative sum subtracts numbers of very unequal size.
    wide = scores.double()
    rest = wide.flip(-1).logcumsumexp(-1).flip(-1)
    return (wide - rest).sum(-1).to(scores.dtype)


def ranking_error(
    student: Tensor,
    teacher: Tensor,
    transfer: str = 'hard',
    alpha: float = 3.0,
    beta: float = 3.0,
    length: int | None = 4,
) -> Tensor:
    """List-wise ranking loss of each image's nearest neighbours, mean over images.

    Scores are ``-alpha d^beta``; ranked are the ``length`` nearest by the teacher's distances,
    without the image itself. Hard: minus the log likelihood of the teacher's order. Soft:
    ``KL(P_t || P_s)`` over all orders.

    Args:
        student, teacher (Tensor): distances (B, B).
    """
    far = teacher.clone().fill_diagonal_(float('inf'))
    order = far.argsort(dim=1, stable=True)[:, : min(length or len(far), len(far) - 1)]
    s, t = (-alpha * x.gather(1, order).pow(beta) for x in (student, teacher))
    if transfer == 'hard':
        return -log_likelihood(s).mean()
    orders = torch.tensor(list(permutations(range(order.shape[1]))), device=s.device)
    log_s, log_t = (log_likelihood(x[:, orders]) for x in (s, t))
    return (log_t.exp() * (log_t - log_s)).sum(1).mean()


@MODELS.register_module()
class DarkRank(InstanceObjective):
    """DarkRank: accelerating deep metric learning via cross sample similarities transfer.

    Chen et al., AAAI 2018, on embeddings of length 1; every image of the batch is the
    query once, and the gradient reaches the query too. The authors' code ranks with ``alpha=12.25,
    beta=4``, at weight 16. Without taps: the embeddings of two classifiers; with taps vectors, or
    maps averaged over places, of any model.

    On detectors the instances are objects, with features of the neck; on segmentors regions, with
    the features before the per-pixel classifier. The weight is that for classifiers.

    Args:
        transfer (str): ``'hard'``, the likelihood of the teacher's order, or ``'soft'``, the
            divergence between distributions over all orders.
        alpha (float): factor of the scores ``-alpha d^beta``.
        beta (float): their exponent, at least 1.
        length (int | None): number of nearest neighbours that are ranked, at least 2; for
            ``'soft'`` at most 6. ``None``, for ``'hard'``, ranks the whole batch.
        normalize (bool): embeddings of length 1, as published; ``False`` ranks them as they are.
        student, teacher, weight, teacher_name, instances, gather: see
            :class:`~mmkd.rows.instance_objective.InstanceObjective`.

    Raises:
        ValueError: options out of range; unequally many layers; models that do not fit. One
            image or two have no order and give 0.
    """

    default_weight = 2.0
    zero_at_equality = False

    def __init__(
        self,
        *taps: Taps,
        transfer: str = 'hard',
        alpha: float = 3.0,
        beta: float = 3.0,
        length: int | None = 4,
        normalize: bool = True,
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        self.transfer = check_choice('DarkRank', 'transfer', transfer, TRANSFERS)
        longest = _LONGEST if self.transfer == 'soft' else None
        optional = longest is None
        self.length = check_number(
            'DarkRank', 'length', length, 2, longest, whole=True, optional=optional
        )
        self.alpha = check_number('DarkRank', 'alpha', alpha, above=0)
        self.beta = check_number('DarkRank', 'beta', beta, 1)
        self.normalize = normalize

    def compare(self, student_rows: Tensor, teacher_rows: Tensor) -> Tensor:
        if len(student_rows) < 3:
            return student_rows.sum() * 0.0
        pair = student_rows, teacher_rows
        s, t = (distances(unit(x) if self.normalize else x) for x in pair)
        return ranking_error(s, t, self.transfer, self.alpha, self.beta, self.length)
