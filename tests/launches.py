"""A launch of several processes as torchrun makes it, for tests."""

import os
import socket
from pathlib import Path

import torch
from torch import distributed, multiprocessing


def launch(function, count, folder, *args):
    """What ``function(rank, folder, *args)`` of a test file's top level returns in each process."""
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    # One process imports everything, and the others are its forks.
    multiprocessing.set_forkserver_preload(['mmkd.engine.runner', 'teacher_toys'])
    given = (count, port, function, str(folder), args)
    multiprocessing.start_processes(_run, given, count, start_method='forkserver')
    return [torch.load(folder / f'{rank}.pt', weights_only=False) for rank in range(count)]


def _run(rank, count, port, function, folder, args):
    torch.set_num_threads(1)
    os.environ |= dict(RANK=str(rank), WORLD_SIZE=str(count), LOCAL_RANK=str(rank))
    os.environ |= dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    torch.save(function(rank, folder, *args), f'{folder}/{rank}.pt')
    leave()


def leave():
    """End this rank at once, when the others are done, too.

    Taking a process group apart waits for threads of gloo's, which now and then never end.
    """
    if distributed.is_initialized():
        distributed.barrier()
    os._exit(0)
