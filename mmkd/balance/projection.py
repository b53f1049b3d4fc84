"""Terms at an obtuse angle to the task lose what opposes it (Yu et al., NeurIPS 2020, PCGrad)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from mmkd.functional.gather import mean_over_ranks
from mmkd.functional.gradients import gradients_at, gradients_by_place

Place = tuple[GradientEdge, Tensor]


def projections(
    losses: Mapping[str, Tensor],
    task: Tensor,
    places: Mapping[str, Sequence[Place]],
    factors: Mapping[str, float],
    scale: float = 1.0,
) -> dict[str, Tensor]:
    """Losses of value 0 whose gradients project those of conflicting terms.

    With gradients g of the task and t of a term at the same tensors, and ``t . g < 0``, the term's
    gradient becomes ``t - (t . g) / |g|^2 g`` (algorithm 1, the task being nobody's conflict). The
    returned loss adds the second summand at these tensors, in the step's only backward pass. Inner
    products are those over all ranks.

    Args:
        losses (dict[str, Tensor]): of each term, without its factor.
        task (Tensor): sum of the student's own losses.
        places (dict[str, list]): of each term, places of the graph with the tensors recorded there.
        factors (dict[str, float]): of each term.
        scale (float): of losses on the way, against underflow in float16.

    Returns:
        dict[str, Tensor]: of the terms that conflict, in float32.
    """
    if not losses:
        return {}
    edges = {name: [edge for edge, _ in places[name]] for name in losses}
    wanted = gradients_by_place(task, edges.values(), scale)
    directions = {name: [wanted[edge] for edge in own] for name, own in edges.items()}
    rows = []
    for name, loss in losses.items():
        found = gradients_at(loss, edges[name], scale)
        pairs = list(zip(found, directions[name], strict=True))
        dots = [(t * g).sum() for t, g in pairs if t is not None and g is not None]
        squares = [g.square().sum() for _, g in pairs if g is not None]
        zero = loss.new_zeros((), dtype=torch.float32)
        rows.append(torch.stack([sum(dots, zero), sum(squares, zero)]))
    turned = {}
    for name, (dot, square) in zip(
        losses, mean_over_ranks(torch.stack(rows)).tolist(), strict=True
    ):
        if dot < 0 < square < float('inf'):
            step = -dot / square * factors.get(name, 1.0)
            turned[name] = _pushing(places[name], directions[name], step)
    return turned


def _pushing(places: Sequence[Place], direction: Sequence[Tensor | None], step: float) -> Tensor:
    """A loss of value 0 with the gradient ``step * direction`` at the places."""
    parts = [
        ((x.float() - x.detach().float()) * (step * g)).sum()
        for (_, x), g in zip(places, direction, strict=True)
        if g is not None
    ]
    return torch.stack(parts).sum()
