"""Numbers between Python and the device, without a wait of one for the other where there can be."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def upload(values: Any, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Python numbers, or a tensor of the CPU, beside ``like``; Python goes on at once.

    ``like.new_tensor(values)`` waits until the device has done everything before.

    Args:
        dtype (torch.dtype | None): that of ``like``, if it is not given.
    """
    found = torch.as_tensor(values, dtype=dtype or like.dtype)
    if like.is_cuda:
        found = found.pin_memory()
    return found.to(like.device, non_blocking=True)


def positions(mask: Tensor, count: int) -> Tensor:
    """Indices of the ``count`` True entries of a vector, (P,) bool -> (count,) long.

    ``mask.nonzero()`` waits for the device to learn how many there are.
    """
    wanted = torch.arange(1, count + 1, device=mask.device)
    return torch.searchsorted(mask.cumsum(0), wanted)


def sizes_of_groups(groups: Tensor, count: int) -> Tensor:
    """How many entries each of ``count`` groups has, (R,) long -> (count,) long."""
    return members(groups, count).sum(0)


def members(groups: Tensor, count: int) -> Tensor:
    """(R, count) bool: does the entry belong to the group?"""
    return groups[:, None] == torch.arange(count, device=groups.device)
