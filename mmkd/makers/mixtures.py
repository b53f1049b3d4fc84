"""Mixtures of two images, and those of which a classifier is least certain."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

#: shares of the first image in a mixture that are tried
SHARES = tuple(round(0.3 + 0.04 * i, 2) for i in range(11))
#: mixtures that a classifier sees at a time
BATCH = 1024


def pair_at(place: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The pairs (i, j), i < j, of ``count`` things at these places of their sorted list.

    Args:
        place (Tensor): (M,) long, from 0 to ``count * (count - 1) / 2 - 1``.
    """
    side = 2 * count - 1
    first = ((side - (side**2 - 8 * place.double()).sqrt()) / 2).floor().long()
    first += (_before(first + 1, count) <= place).long()  # what the square root has rounded away
    first -= (_before(first, count) > place).long()
    return first, place - _before(first, count) + first + 1


def place_of(first: Tensor, second: Tensor, count: int) -> Tensor:
    """The inverse of :func:`pair_at`."""
    return _before(first, count) + second - first - 1


def _before(first: Tensor, count: int) -> Tensor:
    """How many pairs begin with a smaller number."""
    return first * (2 * count - first - 1) // 2


def mixed(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """``share * first + (1 - share) * second``, rounded to whole numbers from 0 to 255.

    Args:
        first, second (Tensor): (M, 3, H, W) uint8.
        share (Tensor): (M,) float32.
    """
    share = share.view(-1, 1, 1, 1)
    return (share * first + (1 - share) * second).round().clamp(0, 255).to(torch.uint8)


def least_confident(
    images: Tensor, first: Tensor, second: Tensor, confidence: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """For each pair the share at which a classifier is least certain of the mixture.

    Wang et al. 2020: ``argmin over the shares of max_c p(c | mixture)``.

    Args:
        images (Tensor): (N, 3, H, W) uint8.
        first, second (Tensor): (M,) long, the pairs.
        confidence (Callable): gives the highest probability of each of some images, (B,).

    Returns:
        tuple: the lowest confidence of each pair and its share, (M,) float32 each.
    """
    shares = torch.tensor(SHARES)
    found, chosen = [], []
    step = max(BATCH // len(shares), 1)
    for start in range(0, len(first), step):
        pair = (x[start : start + step].repeat_interleave(len(shares)) for x in (first, second))
        a, b = (images[x] for x in pair)
        values = confidence(mixed(a, b, shares.repeat(len(a) // len(shares))))
        lowest = values.cpu().float().view(-1, len(shares)).min(1)
        found.append(lowest.values)
        chosen.append(shares[lowest.indices])
    return torch.cat(found), torch.cat(chosen)


def lowest(values: Tensor, count: int) -> Tensor:
    """Places of the ``count`` smallest of (M,), in their order; of equal ones the first."""
    return values.argsort(stable=True)[:count]
