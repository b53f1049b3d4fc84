"""Rows of all ranks in one matrix, and means over ranks, of which normalisers are made."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import all_reduce, get_rank, get_world_size
from torch import Tensor
from torch import distributed as torch_dist


def all_gather_rows(x: Tensor) -> Tensor:
    """(B, ...) of this rank -> (B_total, ...) of all ranks, in the order of ranks.

    Differentiable: if every rank computes the same function of the result, gradients averaged over
    ranks, as DDP does, are those of one process with the whole batch. Ranks may hold unequally many
    rows. Without ``torch.distributed``, or with one rank, ``x`` itself.

    Args:
        x (Tensor): equal on all ranks in all dimensions but the first.
    """
    return x if get_world_size() == 1 else _AllGather.apply(x)


def mean_over_ranks(x: Tensor) -> Tensor:
    """The mean over all ranks of a tensor of one shape everywhere, without gradients."""
    if get_world_size() > 1:
        x = x.clone()
        all_reduce(x, 'mean')
    return x


class _AllGather(torch.autograd.Function):
    """No communication in the backward pass, so ranks may need different gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        rank, world = get_rank(), get_world_size()
        counts = [torch.zeros((), dtype=torch.long, device=x.device) for _ in range(world)]
        torch_dist.all_gather(counts, torch.tensor(len(x), device=x.device))
        sizes = [int(count) for count in counts]
        padded = x.new_zeros(max(sizes), *x.shape[1:])
        padded[: len(x)] = x
        parts = [torch.empty_like(padded) for _ in range(world)]
        torch_dist.all_gather(parts, padded)
        ctx.own = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        ctx.world = world
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        # Each rank has the whole gradient of its own rows: averaging divides it by their number.
        return grad[ctx.own] * ctx.world
