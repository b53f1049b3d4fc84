"""How far numbers may move where only the order of sums or the precision changes."""

import torch
from torch import Tensor

#: Largest change of a tapped tensor, relative to its largest number. A ResNet-101 with FPN shows
#: 4e-6 for what is exact but for the order of sums, 3e-3 for fp16 and 2.4e-2 for bf16.
EXACT = 1e-3
LIMITS = {torch.float16: 2e-2, torch.bfloat16: 1e-1}
#: maps of smaller numbers than this are of an untrained network, and rounded to nothing by fp16
TINY = 1e-3


def largest_change(before: Tensor, after: Tensor) -> float:
    """Largest difference of two tensors of one shape, relative to the largest number of the first.

    Differences below :data:`TINY` of a map of tiny numbers count as if its largest were that.
    """
    if not before.numel():
        return 0.0
    return float((after - before).abs().max() / before.abs().max().clamp(min=TINY))
