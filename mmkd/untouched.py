"""Run a network and put back random states, modes and buffers afterwards."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextlib.contextmanager
def untouched_random_state() -> Iterator[None]:
    """Leave python's, numpy's and torch's random streams as they were."""
    states = random.getstate(), np.random.get_state()
    # Where it sees several GPUs, that of this process alone: torch warns of looking at all.
    devices = [torch.cuda.current_device()] if torch.cuda.device_count() > 1 else None
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


@contextlib.contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Eval mode for a while; every module gets its own flag back."""
    with flags_kept(model):
        model.eval()
        yield


@contextlib.contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """While a network runs in eval mode and without gradients, so that nothing of it moves."""
    with evaluation(model), torch.no_grad():
        yield


@contextlib.contextmanager
def training(model: nn.Module) -> Iterator[None]:
    """Train mode for a while, without anything that it would leave behind.

    BatchNorms stay in eval mode, which gives the same shapes, also for one image.
    """
    with flags_kept(model):
        model.train()
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        with buffers_aside(model):
            yield


@contextlib.contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Whatever happens to a network's buffers, such as BatchNorm statistics, is taken back."""
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.copy_(value)


@contextlib.contextmanager
def buffers_aside(model: nn.Module) -> Iterator[None]:
    """Run a network on copies of its buffers: unlike :func:`buffers_kept` nothing is written back
    to those that a graph may hold."""
    buffers = [(m, n, b) for m in model.modules() for n, b in m._buffers.items() if b is not None]
    for module, name, buffer in buffers:
        module._buffers[name] = buffer.clone()
    try:
        yield
    finally:
        for module, name, buffer in buffers:
            module._buffers[name] = buffer


@contextlib.contextmanager
def flags_kept(model: nn.Module) -> Iterator[None]:
    flags = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag
