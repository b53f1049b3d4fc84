"""Which neurons are worth teaching: how well they tell attributes, and how alike two are."""

from __future__ import annotations

import torch
from torch import Tensor


def balanced_accuracy(values: Tensor, attributes: Tensor) -> Tensor:
    """(TPR + TNR) / 2 of the best threshold on each neuron, on whichever side of it, from .5 to 1.

    Args:
        values (Tensor): (N, D), of N images.
        attributes (Tensor): (N, A) bool, each with images of both kinds.

    Returns:
        Tensor: (D, A) float64.
    """
    ordered, order = values.double().sort(0, descending=True)
    cut = torch.ones_like(ordered, dtype=torch.bool)
    cut[:-1] = ordered[:-1] != ordered[1:]
    found = []
    for has in attributes.T:
        hits = has[order].double()
        true_positive = hits.cumsum(0) / hits.sum(0)
        false_positive = (1 - hits).cumsum(0) / (1 - hits).sum(0)
        score = (true_positive + 1 - false_positive) / 2
        score = torch.where(cut, score, 0.5)
        found.append(torch.maximum(score, 1 - score).amax(0))
    return torch.stack(found, 1)


def attribute_cost(scores: Tensor, identity: list[int], nuisance: list[int]) -> Tensor:
    """``(max_NA - mean_NA) / (max_IA - mean_IA)``: low for neurons that tell identities apart.

    Luo et al. 2016. Infinite for a neuron that all attributes of identity move alike.

    Args:
        scores (Tensor): (D, A), of each neuron and attribute.
        identity, nuisance (list[int]): columns.

    Returns:
        Tensor: (D,) float64.
    """
    selective = [x.amax(1) - x.mean(1) for x in (scores[:, nuisance], scores[:, identity])]
    cost = selective[0] / selective[1]
    return torch.where(selective[1] > 0, cost, torch.inf)


def identity_cost(values: Tensor, labels: Tensor) -> Tensor:
    """Variance inside of identities over that between them, the inverse of Fisher's ratio.

    Args:
        values (Tensor): (N, D).
        labels (Tensor): (N,) long.

    Returns:
        Tensor: (D,) float64, infinite for a neuron with the same mean for all.
    """
    values = values.double()
    _, labels, counts = labels.unique(return_inverse=True, return_counts=True)
    means = torch.zeros(len(counts), values.shape[1], dtype=torch.float64)
    means = means.index_add(0, labels, values) / counts[:, None]
    within = (values - means[labels]).square().mean(0)
    between = (means[labels] - values.mean(0)).square().mean(0)
    return torch.where(between > 0, within / between, torch.inf)


def likeness(scores: Tensor) -> Tensor:
    """``exp(-|x_i - x_j|^2 / 2)`` of rows (D, A), with zeros on the diagonal: (D, D)."""
    found = (-torch.cdist(scores, scores).square() / 2).exp()
    return found - found.diag().diag()


def energy(chosen: list[int], cost: Tensor, alike: Tensor, lam: float) -> float:
    """``sum_i f_i + lam sum_{i != j} Psi_ij`` over the chosen ones, the paper's E(y)."""
    return float(cost[chosen].sum() + lam * alike[chosen][:, chosen].sum())


def cheapest(cost: Tensor, alike: Tensor, lam: float, count: int) -> list[int]:
    """So many neurons, each the one that adds least to the energy, in the order of their choice.

    Without likeness (``lam=0``) they are the ``count`` of least cost.
    """
    added, chosen = cost.clone(), []
    for _ in range(count):
        best = int(added.argmin())
        chosen.append(best)
        added = added + 2 * lam * alike[best]
        added[best] = torch.inf
    return chosen


def mean_field(
    cost: Tensor, alike: Tensor, lam: float, theta: float, temperature: float, sweeps: int = 1000
) -> Tensor:
    """Marginals ``q_i = sigmoid((theta - f_i - 2 lam sum_j Psi_ij q_j) / t)``, one after the other.

    Theta is what a neuron is worth; without it the least energy is that of none.

    Args:
        sweeps (int): at most, over all neurons; they end when no marginal moves by 1e-9.

    Returns:
        Tensor: (D,) float64, from 0 to 1.
    """
    marginals = torch.full_like(cost, 0.5)
    for _ in range(sweeps):
        before = marginals.clone()
        for i in range(len(cost)):
            pull = cost[i] - theta + 2 * lam * alike[i] @ marginals
            marginals[i] = torch.sigmoid(-pull / temperature)
        if float((marginals - before).abs().max()) < 1e-9:
            break
    return marginals
