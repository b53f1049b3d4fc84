"""Values for parameters that a constructor leaves to ``init_weights``, as it found them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn


@contextlib.contextmanager
def uninitialised_as_nan() -> Iterator[None]:
    """While it lasts, memory that torch leaves as it found it (``torch.empty``) is NaN."""
    settings = torch.utils.deterministic
    filled = settings.fill_uninitialized_memory
    deterministic = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    settings.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True, warn_only=warns)
    try:
        yield
    finally:
        settings.fill_uninitialized_memory = filled
        torch.use_deterministic_algorithms(deterministic, warn_only=warns)


def finite(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a network, and give small values to parameters that its constructor leaves as found.

    Level embeddings of DETR heads are such parameters. A network that is built to be looked at, or
    to be an untrained teacher, would compute NaN with them. The global random state does not move.
    """
    with uninitialised_as_nan():
        model = build()
    fill_nan(model)
    return model


@torch.no_grad()
def fill_nan(model: nn.Module, std: float = 0.02) -> None:
    """Draw what is NaN among the parameters from a normal distribution, always the same."""
    generator = torch.Generator('cpu').manual_seed(0)
    for parameter in model.parameters():
        missing = parameter.isnan()
        if not parameter.is_meta and missing.any():
            drawn = torch.randn(parameter.shape, generator=generator, device='cpu').to(parameter)
            parameter.copy_(drawn.mul_(std).where(missing, parameter))
