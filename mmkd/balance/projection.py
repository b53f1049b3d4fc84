"""Terms at an obtuse angle to the task lose what opposes it (Yu et al., NeurIPS 2020, PCGrad)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mmkd.functional.gather import mean_over_ranks


def projections(
    terms: Mapping[str, Sequence[Tensor | None]],
    task: Mapping[str, Sequence[Tensor | None]],
    tensors: Mapping[str, Sequence[Tensor]],
    factors: Mapping[str, float],
    device: torch.device,
) -> tuple[dict[str, Tensor], Tensor]:
    """Losses of value 0 whose gradients project those of conflicting terms.

    With gradients g of the task and t of a term at the same tensors, and ``t . g < 0``, the term's
    gradient becomes ``t - (t . g) / |g|^2 g`` (algorithm 1, the task being nobody's conflict). The
    returned loss adds the second summand at these tensors, in the step's only backward pass; of a
    term without a conflict it adds 0. Inner products are those over all ranks. Nothing waits for
    the device.

    Args:
        terms (dict[str, list]): gradients of each term, without its factor, in float32; None where
            it does not reach.
        task (dict[str, list]): those of the task, at the same tensors.
        tensors (dict[str, list]): of the graph, where the gradients were taken.
        factors (dict[str, float]): of each term.
        device (torch.device): of the inputs.

    Returns:
        tuple: the losses of all terms that are compared, in float32; how many conflict, ().
    """
    rows = []
    for name, found in terms.items():
        pairs = list(zip(found, task[name], strict=True))
        dots = [(t * g).sum() for t, g in pairs if t is not None and g is not None]
        squares = [g.square().sum() for _, g in pairs if g is not None]
        zero = torch.zeros((), device=device)
        rows.append(torch.stack([sum(dots, zero), sum(squares, zero)]))
    dot, square = mean_over_ranks(torch.stack(rows)).unbind(1)
    opposed = (dot < 0) & (square > 0) & square.isfinite()
    steps = torch.where(opposed, -dot / square, 0)
    turned = {
        name: _pushing(tensors[name], task[name], step * factors.get(name, 1.0))
        for name, step in zip(terms, steps, strict=True)
        if any(g is not None for g in task[name])
    }
    return turned, opposed.sum()


def _pushing(tensors: Sequence[Tensor], direction: Sequence[Tensor | None], step: Tensor) -> Tensor:
    """A loss of value 0 with the gradient ``step * direction`` at the tensors, 0 for no step."""
    parts = [
        ((x.float() - x.detach().float()) * torch.where(step > 0, step * g, 0)).sum()
        for x, g in zip(tensors, direction, strict=True)
        if g is not None
    ]
    return torch.stack(parts).sum()
