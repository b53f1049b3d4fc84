"""Two gloo processes that share a step, for what has to agree between ranks."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from launches import launch
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

from mmkd.distiller import Distiller
from mmkd.testing import detection_batch


def of_two_ranks(function: Callable[..., Any], folder: Path | str, *args: Any) -> list:
    """What ``function(rank, *args)`` of a test file's top level returns on ranks 0 and 1."""
    return launch(_grouped, 2, folder, function, *args)


def uneven(rank: int) -> list[tuple[Tensor, list]]:
    """Two batches of a detector; those of rank 1 have no box."""
    return [detection_batch(1, objects=2 - 2 * rank, seed=step * 2 + rank) for step in range(2)]


def after_steps(model: Distiller, batches: list[tuple[Tensor, list]]) -> dict[str, Tensor]:
    """Parameters after a step of DDP, which does not look for unused ones, on each batch."""
    wrapped = DistributedDataParallel(model, broadcast_buffers=False)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    for data in batches:
        losses = wrapped(*data, mode='loss')
        optimiser.zero_grad()
        model.parse_losses(losses)[0].backward()
        optimiser.step()
    return {k: p.detach() for k, p in model.named_parameters()}


def _grouped(rank: int, folder: str, function: Callable[..., Any], *args: Any) -> Any:
    distributed.init_process_group('gloo', timeout=timedelta(minutes=3))
    return function(rank, *args)
