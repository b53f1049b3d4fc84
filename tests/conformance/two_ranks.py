"""Two gloo processes that share a step, for what has to agree between ranks."""

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

from mmkd.distiller import Distiller
from mmkd.testing import detection_batch


def of_two_ranks(function: Callable[[int], Any], folder: Path | str) -> list:
    """What ``function(rank)`` of a test file's top level returns on ranks 0 and 1."""
    multiprocessing.spawn(_run, (function, str(folder)), nprocs=2)
    return [torch.load(f'{folder}/{rank}.pth') for rank in (0, 1)]


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


def _run(rank: int, function: Callable[[int], Any], folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        'gloo', f'file://{folder}/store', timedelta(minutes=3), rank=rank, world_size=2
    )
    torch.save(function(rank), f'{folder}/{rank}.pth')
    leave()


def leave() -> None:
    """End this rank at once, when the other is done, too.

    Taking a process group apart waits for threads of gloo's, which now and then never end.
    """
    distributed.barrier()
    os._exit(0)
