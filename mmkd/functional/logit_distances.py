"""Distances between class logits, such as the KL divergence, per row or per pixel."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

#: what the sum over pixels is divided by, see :func:`pixel_wise_kl`
PIXEL_REDUCTIONS = ('per_pixel', 'skd_sum', 'element_mean')


def soft_kl(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    """``tau^2 * sum_k p_t (log p_t - log p_s)`` of each row, p = softmax(z / tau).

    Args:
        student, teacher (Tensor): logits (..., K); the teacher is the target.

    Returns:
        Tensor: (...), not reduced.
    """
    log_s, log_t = F.log_softmax(student / tau, -1), F.log_softmax(teacher / tau, -1)
    return F.kl_div(log_s, log_t, reduction='none', log_target=True).sum(-1) * tau**2


def mean_kl(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    """``tau^2 * mean_k p_t (log p_t - log p_s)``, p = softmax(z / tau); (..., K) -> (...)."""
    log_s, log_t = ((z / tau).log_softmax(-1) for z in (student, teacher))
    return F.kl_div(log_s, log_t, reduction='none', log_target=True).mean(-1) * tau**2


def pixel_wise_kl(
    student: Tensor,
    teacher: Tensor,
    tau: float = 1.0,
    reduction: str = 'per_pixel',
    valid: Tensor | None = None,
) -> Tensor:
    """``tau^2 * sum over pixels of KL(softmax_K(T / tau) || softmax_K(S / tau))``, divided.

    Args:
        student, teacher (Tensor): logits (N, K, H, W).
        tau (float): temperature.
        reduction (str): divides by N * H * W (``'per_pixel'``), H * W (``'skd_sum'``) or
            N * K * H * W (``'element_mean'``).
        valid (Tensor | None): (N, H, W) bool; other pixels are neither summed nor counted.
    """
    n, k, h, w = student.shape
    kl = soft_kl(student.permute(0, 2, 3, 1), teacher.permute(0, 2, 3, 1), tau)
    count: int | Tensor = n * h * w
    if valid is not None:
        kl, count = kl * valid, valid.sum().clamp(min=1)
    divisor = {'per_pixel': count, 'skd_sum': count / n, 'element_mean': count * k}
    return kl.sum() / divisor[reduction]


def half_squared_error(student: Tensor, teacher: Tensor) -> Tensor:
    """``1 / (2 R) * sum_r ||z_s - z_t||^2`` of logits (R, K)."""
    return (student - teacher).square().sum(1).mean() / 2


def bernoulli_kl(student: Tensor, target: Tensor) -> Tensor:
    """``KL(q || sigmoid(z))`` element by element: binary cross entropy less its least value.

    Args:
        student (Tensor): logits z, of any shape.
        target (Tensor): probabilities q, of the same.
    """
    entropy = torch.special.entr(target) + torch.special.entr(1 - target)
    return F.binary_cross_entropy_with_logits(student, target, reduction='none') - entropy


def weighted_cross_entropy(
    student: Tensor,
    teacher: Tensor,
    weight: Tensor | float = 1.0,
    tau: float = 1.0,
    entropy: bool = True,
) -> Tensor:
    """``- sum_c w_c P_t,c log P_s,c`` with P = softmax(z / tau); (..., C) -> (...).

    Args:
        weight (Tensor | float): w of each class, (..., C) or something that broadcasts to it.
        entropy (bool): False subtracts the same with P_t for P_s, a constant.
    """
    log_s, log_t = ((z / tau).log_softmax(-1) for z in (student, teacher))
    return (weight * log_t.exp() * ((0.0 if entropy else log_t) - log_s)).sum(-1)


def weighted_binary_cross_entropy(
    student: Tensor,
    teacher: Tensor,
    weights: tuple[Tensor | float, Tensor | float],
    tau: float = 1.0,
    entropy: bool = True,
) -> Tensor:
    """:func:`weighted_cross_entropy` of sigmoids, each a class against the background; (...).

    A softmax of the two logits z and 0 gives the same, but takes eight times as long.

    Args:
        student, teacher (Tensor): logits (...) of the class.
        weights (tuple): of the class and of the background, each a number or (...).
    """
    own, wanted = student / tau, teacher / tau
    p = wanted.sigmoid()
    background = weights[1] * (1 - p)
    both = weights[0] * p + background
    found = background * own - both * F.logsigmoid(own)  # log(1 - p) = log(p) - z
    return found if entropy else found - (background * wanted - both * F.logsigmoid(wanted))


def decoupled_kl(
    student: Tensor, teacher: Tensor, target: Tensor, tau: float
) -> tuple[Tensor, Tensor]:
    """``tau^2 KL(b_t || b_s)`` and ``tau^2 KL(q_t || q_s)`` of each row.

    ``b = (p_y, 1 - p_y)`` is the target class y against the rest, q the distribution of the rest:
    ``KL(p_t || p_s)`` is the first plus ``1 - p_t,y`` times the second.

    Args:
        student, teacher (Tensor): logits (R, K).
        target (Tensor): y, (R,) long.
        tau (float): temperature of all softmaxes.

    Returns:
        tuple: target and non-target term, (R,) each.
    """
    (b_s, q_s), (b_t, q_t) = (log_parts(z / tau, target) for z in (student, teacher))
    target_kl, other_kl = (
        F.kl_div(s, t, reduction='none', log_target=True).sum(-1)
        for s, t in ((b_s, b_t), (q_s, q_t))
    )
    return target_kl * tau**2, other_kl * tau**2


def log_parts(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """``log b`` (R, 2) and ``log q`` (R, K - 1), without a logarithm of a probability."""
    others = torch.arange(logits.shape[-1] - 1, device=logits.device).expand(len(logits), -1)
    others = logits.gather(1, others + (others >= target[:, None]).long())
    both = torch.cat((logits.gather(1, target[:, None]), others.logsumexp(1, keepdim=True)), 1)
    return both.log_softmax(1), others.log_softmax(1)
