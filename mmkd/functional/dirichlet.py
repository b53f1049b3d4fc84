"""Dirichlet distributions over classes: how likely members of an ensemble are, and entropies."""

from __future__ import annotations

import torch
from torch import Tensor


def concentrations(logits: Tensor, tau: float = 1.0, most: float = 15.0) -> Tensor:
    """``alpha = exp(z / tau)``, z / tau from ``-most`` to ``most``; (..., K).

    In float64: log-gamma functions of a million differ in the digits that float32 has not.
    """
    return (logits.double() / tau).clamp(-most, most).exp()


def negative_log_likelihood(alpha: Tensor, mean_log: Tensor) -> Tensor:
    """``-1/M sum_m log Dir(pi_m; alpha)`` of each row, not reduced.

    Args:
        alpha (Tensor): concentrations, (..., K).
        mean_log (Tensor): mean over the M members of ``log pi_m``, (..., K).
    """
    normaliser = alpha.lgamma().sum(-1) - alpha.sum(-1).lgamma()
    return normaliser - ((alpha - 1) * mean_log).sum(-1)


def uncertainties(alpha: Tensor) -> dict[str, Tensor]:
    """Entropies in nats of each row, (...).

    ``total`` is that of the mean class probabilities ``alpha / alpha_0``, ``data`` the expected
    entropy of what the Dirichlet distribution draws, ``knowledge`` their difference, the mutual
    information of class and draw: large where the members of an ensemble disagree.

    Args:
        alpha (Tensor): concentrations, (..., K).
    """
    whole = alpha.sum(-1, keepdim=True)
    mean = alpha / whole
    total = torch.special.entr(mean).sum(-1)
    data = -(mean * ((alpha + 1).digamma() - (whole + 1).digamma())).sum(-1)
    return dict(total=total, data=data, knowledge=(total - data).clamp(min=0))
