"""What a prediction costs: parameters, multiply-accumulates, and seconds on this machine."""

from __future__ import annotations

import contextlib
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

WARM_UP, ROUNDS, SECONDS = 2, (10, 100), 3.0  # rounds of calls, at least and at most
COUNTED = 'convolutions, matrix products and attention'
NOT_COUNTED = 'normalisation, activations, pooling, resizing'


@dataclass(frozen=True)
class Complexity:
    """Of one network, for what it was called on.

    Attributes:
        parameters (int): of the whole network, trained or not.
        macs (int): multiply-accumulates of convolutions, matrix products and attention.
        left_out (tuple[str, ...]): classes of mmcv's own operators that ran; none of their work is
            in ``macs``.
    """

    parameters: int
    macs: int
    left_out: tuple[str, ...] = ()


@torch.no_grad()
def complexity(model: nn.Module, run: Callable[[], Any]) -> Complexity:
    """Count while ``run()`` calls the model.

    mmcv's operators (RoIAlign, deformable convolutions) are left out however they are computed, so
    the number does not depend on how mmcv was built.
    """
    operators = {name: module for name, module in model.named_modules() if _of_mmcv(module)}
    ran: set[str] = set()
    hooks = [
        module.register_forward_hook(lambda module, *_: ran.add(type(module).__name__))
        for module in operators.values()
    ]
    try:
        with _constants(model), _products_only(), FlopCounterMode(display=False) as counter:
            run()
    finally:
        for hook in hooks:
            hook.remove()
    flops = {
        name.partition('.')[2]: sum(by_kind.values())
        for name, by_kind in counter.get_flop_counts().items()
    }
    own = 0
    for name, module in operators.items():
        parts = sum(flops.get(f'{name}.{child}', 0) for child, _ in module.named_children())
        own += flops.get(name, 0) - parts
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Complexity(parameters, (counter.get_total_flops() - own) // 2, tuple(sorted(ran)))


def _of_mmcv(module: nn.Module) -> bool:
    return any(kind.__module__.startswith('mmcv.ops.') for kind in type(module).__mro__)


@contextlib.contextmanager
def _constants(model: nn.Module) -> Iterator[None]:
    """Parameters that do not train: PyTorch's counter stops at a module that is given a part of one
    that does, such as the queries of Deformable DETR."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in learning:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


@contextlib.contextmanager
def _products_only() -> Iterator[None]:
    """Attention as matrix products: PyTorch's counter does not know the fused kernels of CPUs."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@torch.no_grad()
def latencies(runs: Mapping[str, Callable[[], Any]]) -> tuple[dict[str, float], int]:
    """Median of the seconds that each of several calls takes, a GPU's work included.

    They take turns, so that a machine which slows down meanwhile slows them all. Two rounds warm
    up; ``ROUNDS`` follow, and more of short ones, until ``SECONDS`` are over.

    Returns:
        tuple: seconds by name, and the number of rounds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    rounds, end = 0, _now() + SECONDS
    while rounds < WARM_UP + ROUNDS[0] or (_now() < end and rounds < WARM_UP + ROUNDS[1]):
        for name, run in runs.items():
            start = _now()
            run()
            seconds[name].append(_now() - start)
        rounds += 1
    medians = {name: statistics.median(values[WARM_UP:]) for name, values in seconds.items()}
    return medians, rounds - WARM_UP


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def device_name(device: torch.device) -> str:
    """A GPU's name; a CPU's with the number of threads that PyTorch uses."""
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    if device.type != 'cpu':
        return device.type
    threads = torch.get_num_threads()
    return f'{_cpu_name()}, {threads} thread{"s" * (threads != 1)}'


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            key, _, value = line.partition(':')
            if key.strip() == 'model name':
                return value.strip()
    return platform.processor() or platform.machine()
