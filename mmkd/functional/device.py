"""Transfer of numbers between Python and the device, without synchronisation where possible."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def upload(values: Any, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Python numbers, or a tensor of the CPU, beside ``like``; Python goes on at once.

    ``like.new_tensor(values)`` synchronises with the device.

    Args:
        dtype (torch.dtype | None): that of ``like``, if it is not given.
    """
    found = torch.as_tensor(values, dtype=dtype or like.dtype)
    if like.is_cuda:
        found = found.pin_memory()
    return found.to(like.device, non_blocking=True)


def positions(mask: Tensor, count: int) -> Tensor:
    """Indices of the ``count`` True entries of a vector, (P,) bool -> (count,) long.

    ``mask.nonzero()`` synchronises with the device to know their number.
    """
    wanted = torch.arange(1, count + 1, device=mask.device)
    return torch.searchsorted(mask.cumsum(0), wanted)


def sizes_of_groups(groups: Tensor, count: int) -> Tensor:
    """Number of entries of each of ``count`` groups, (R,) long -> (count,) long."""
    return members(groups, count).sum(0)


def members(groups: Tensor, count: int) -> Tensor:
    """Membership of each entry in each group, (R, count) bool."""
    return groups[:, None] == torch.arange(count, device=groups.device)
