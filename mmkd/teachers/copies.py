"""A copy of the student as a network of its own, and weights that go from one to the other."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.dist import broadcast
from torch import Tensor, nn

from mmkd.untouched import untouched_random_state


def copy_of(student: nn.Module) -> nn.Module:
    """The same architecture with weights of its own."""
    with untouched_random_state():
        return copy.deepcopy(student)


@torch.no_grad()
def take_weights(model: nn.Module, student: nn.Module) -> None:
    """Copy the student's parameters and buffers."""
    pairs = zip(tensors(model), tensors(student), strict=True)
    for (_, own), (_, value) in pairs:
        own.copy_(value)


def tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers by name, those that no checkpoint has among them."""
    return [*model.named_parameters(), *model.named_buffers()]


def share_buffers(model: nn.Module) -> None:
    """Give all ranks the buffers of rank 0: statistics of BatchNorms are each rank's own."""
    for _, buffer in model.named_buffers():
        broadcast(buffer, src=0)


def load(who: str, model: nn.Module, weights: Mapping[str, Any]) -> None:
    """Load weights of a checkpoint of this run.

    Raises:
        ValueError: they are of another network.
    """
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(
            f'cannot resume: the {who} teacher in the checkpoint is of another network '
            f'({" ".join(str(error).split())[:200]}). Resume with the same student, or take the '
            'weights alone: load_from without resume.'
        ) from None
