"""Relations between the rows of a batch: cosines, distances, and losses on them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def unit(x: Tensor, eps: float = 1e-6) -> Tensor:
    """(..., D) vectors of length 1; shorter than ``eps`` they become 0 and get no gradient."""
    x = at_least_float32(x)
    length = x.norm(dim=-1, keepdim=True)
    return x / length.clamp(min=eps) * (length >= eps)


def smooth_unit(x: Tensor, eps: float = 1e-8) -> Tensor:
    """``x / sqrt(|x|^2 + eps)`` of (..., D): 0 stays 0, and gradients near it stay moderate."""
    return x / (x.square().sum(-1, keepdim=True) + eps).sqrt()


def cosines(x: Tensor) -> Tensor:
    """Cosine between any two rows, (B, D) -> (B, B); 0 for zero rows."""
    rows = unit(x)
    return rows @ rows.T


def distances(x: Tensor) -> Tensor:
    """Euclidean distance between any two rows, (B, D) -> (B, B); no gradient where it is 0.

    By way of a Gram matrix, for differences would take B * B * D numbers; in float64 and around the
    mean, so that close rows do not cancel. Less than 1e-7 of the longest row counts as 0.
    """
    x = at_least_float32(x)
    rows = x.double()
    rows = rows - rows.detach().mean(0)
    gram = rows @ rows.T
    length = gram.diagonal()
    square = length[:, None] + length - 2 * gram
    longest = length.detach().amax() if len(x) else 0.0
    apart = square > 1e-14 * longest
    return torch.where(apart, torch.where(apart, square, 1.0).sqrt(), 0.0).to(x.dtype)


def relation_loss(student: Tensor, teacher: Tensor, groups: Tensor | None = None) -> Tensor:
    """Mean smooth L1 between distances of pairs i != j, each side's divided by its own mean.

    Fewer than three rows have nothing to compare and give 0.

    Args:
        student, teacher (Tensor): (Q, ...), each row flattened.
        groups (Tensor | None): (Q,); only pairs within a group count.
    """
    pairs = ~torch.eye(len(student), dtype=torch.bool, device=student.device)
    if groups is not None:
        pairs &= groups[:, None] == groups
    count = pairs.sum()
    found = [distances(x.flatten(1)) * pairs for x in (student, teacher)]
    means = [(x.sum() / (x > 0).sum().clamp(min=1)).clamp(min=1e-12) for x in found]
    gaps = F.smooth_l1_loss(*(x / m for x, m in zip(found, means, strict=True)), reduction='sum')
    return gaps * (count >= 6) / count.clamp(min=1)


def conditional(similarity: Tensor) -> Tensor:
    """Rows of non-negative similarities (B, B) as probabilities; a row of zeros stays 0."""
    return similarity / similarity.sum(1, keepdim=True).clamp(min=1e-12)


def without_diagonal(x: Tensor) -> Tensor:
    """(B, B) with zeros on the diagonal."""
    return x * (1 - torch.eye(len(x), dtype=x.dtype, device=x.device))


def at_most(rows: Tensor, most: int) -> Tensor:
    """Rows (R, ...), thinned out evenly where there are more than ``most``."""
    if len(rows) <= most:
        return rows
    return rows[torch.arange(most, device=rows.device) * len(rows) // most]


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision as float32; anything else as it is."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
