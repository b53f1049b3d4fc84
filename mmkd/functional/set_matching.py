"""Pairs of queries and what they are compared with, by the Hungarian algorithm.

Carion et al., ECCV 2020: the cost of a pair is its loss, so a query is compared with what it is
about, whatever its place in the list.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mmkd.functional.box_distances import corners, giou
from mmkd.functional.device import upload
from mmkd.functional.logit_distances import bernoulli_kl


def assign(**costs: Tensor) -> dict[str, Tensor]:
    """Partners of least total cost, for each matrix on its own; waits for the device once.

    Args:
        **costs (Tensor): by a name for messages, matrices (..., S, T).

    Returns:
        dict[str, Tensor]: for each the column of every row, (..., S) long; -1 for rows that are
        left over, if there are more of them than columns.

    Raises:
        ValueError: a cost that is NaN or infinite.
    """
    from scipy.optimize import linear_sum_assignment

    flat = torch.cat([cost.detach().float().flatten() for cost in costs.values()]).cpu().numpy()
    found, start = {}, 0
    for name, cost in costs.items():
        rows, columns = cost.shape[-2:]
        part = flat[start : start + cost.numel()]
        start += cost.numel()
        if not np.isfinite(part).all():
            raise ValueError(
                f'costs of matching {name}: {int((~np.isfinite(part)).sum())} of {part.size} are '
                'NaN or infinite, so that a network gave such scores or boxes; lower the learning '
                'rate, clip gradients, and look at the losses of the steps before.'
            )
        matrices = part.reshape(-1, rows, columns) if part.size else ()
        partners = np.full((cost.shape[:-2].numel(), rows), -1)
        for chosen, matrix in zip(partners, matrices, strict=False):
            i, j = linear_sum_assignment(matrix)
            chosen[i] = j
        found[name] = upload(partners.reshape(cost.shape[:-1]), cost, torch.long)
    return found


def pair_costs(
    scores: Tensor, boxes: Tensor, wanted: Tensor, targets: Tensor, factors: Mapping[str, float]
) -> Tensor:
    """``BCE(z_i, q_j) + |b_i - b_j|_1 - GIoU_ij``, each with its factor, for all pairs (..., S, T).

    Args:
        scores, boxes (Tensor): logits z (..., S, K) and boxes (..., S, 4), cxcywh; the entropy is
            summed over the K classes, the difference over the coordinates.
        wanted, targets (Tensor): probabilities q (..., T, K) and boxes (..., T, 4).
        factors (Mapping): of ``'classes'``, ``'boxes'`` and ``'giou'``.
    """
    cross = F.softplus(scores).sum(-1)[..., None] - scores @ wanted.transpose(-1, -2)
    shift = (boxes[..., :, None, :] - targets[..., None, :, :]).abs().sum(-1)
    overlap = giou(corners(boxes)[..., :, None, :], corners(targets)[..., None, :, :])
    return factors['classes'] * cross + factors['boxes'] * shift - factors['giou'] * overlap


def pair_terms(
    scores: Tensor, boxes: Tensor, wanted: Tensor, targets: Tensor, partners: Tensor
) -> dict[str, Tensor]:
    """Distances of each row to its partner, (..., S): those of :func:`pair_costs`, but without the
    entropy of q, and 1 - GIoU. They are 0 for rows without a partner.

    Args:
        partners (Tensor): of :func:`assign`, (..., S).
    """
    at = partners.clamp(min=0)[..., None]
    if not wanted.shape[-2]:
        return {term: 0.0 * boxes.sum(-1) for term in ('classes', 'boxes', 'giou')}
    q = wanted.gather(-2, at.expand(*at.shape[:-1], wanted.shape[-1]))
    b = targets.gather(-2, at.expand(*at.shape[:-1], 4))
    paired = partners >= 0
    terms = dict(
        classes=bernoulli_kl(scores, q).sum(-1),
        boxes=(boxes - b).abs().sum(-1),
        giou=1 - giou(corners(boxes), corners(b)),
    )
    return {term: value * paired for term, value in terms.items()}
