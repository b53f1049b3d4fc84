"""Maps as large as those of the largest rank."""

from __future__ import annotations

import torch
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor
from torch.nn import functional as F


def sizes_of_all_ranks(maps: list[Tensor]) -> list[Tensor]:
    """Maps (..., C, h, w) with zeros below and to the right, as large as the largest rank's.

    Batches of other ranks may be padded to another size; where one ends, its gradient is 0.
    """
    if get_world_size() == 1 or not maps:
        return maps
    largest = torch.tensor([x.shape[-2:] for x in maps], device=maps[0].device)
    all_reduce(largest, 'max')
    return [
        F.pad(x, (0, int(w) - x.shape[-1], 0, int(h) - x.shape[-2]))
        for x, (h, w) in zip(maps, largest.tolist(), strict=True)
    ]
