"""How uncertain a detector is of an image, by the scores of its boxes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: boxes of an image that count, and the score from which on they do
TOP, LEAST = 20, 0.05


def entropy(scores: Tensor) -> float:
    """Mean binary entropy of the 20 highest scores of at least 0.05, by the natural logarithm.

    ``-p ln p - (1 - p) ln(1 - p)`` is highest, ln 2, at p = 1/2. An image without such a box has
    ln 2, so that images on which the detector finds nothing are asked about, too.

    Args:
        scores (Tensor): (P,), of the boxes of an image.
    """
    kept = scores[scores >= LEAST].double().clamp(max=1).sort(descending=True).values[:TOP]
    if not len(kept):
        return math.log(2)
    return float(-(torch.xlogy(kept, kept) + torch.xlogy(1 - kept, 1 - kept)).mean())


def least_confident(scores: Tensor) -> float:
    """1 - the highest score, 1 without a box. Arguments as of :func:`entropy`."""
    return 1 - float(scores.double().max()) if len(scores) else 1.0


MEASURES = dict(entropy=entropy, least_confident=least_confident)
