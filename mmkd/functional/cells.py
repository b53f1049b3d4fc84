"""Maps of several levels as one list of cells."""

from __future__ import annotations

import torch
from torch import Tensor


def rows(maps: list[Tensor], width: int) -> Tensor:
    """Maps of all levels (N, A * D, H, W), D = width, as (N, P, D) in the order of the priors."""
    return torch.cat([m.permute(0, 2, 3, 1).reshape(len(m), -1, width) for m in maps], 1)
