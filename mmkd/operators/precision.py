"""Low precisions: operators compute in float32 and round once, at the end."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec('P')
R = TypeVar('R')

LOW = {torch.float16, torch.bfloat16}


def full(tensor: Tensor) -> Tensor:
    """The tensor in float32 where its precision is lower, otherwise as it is."""
    return tensor.float() if tensor.dtype in LOW else tensor


def without_autocast(
    function: Callable[Concatenate[Tensor, P], R],
) -> Callable[Concatenate[Tensor, P], R]:
    """The function, whose matrix products keep their precision under AMP, as kernels do."""

    @functools.wraps(function)
    def call(first: Tensor, *args: P.args, **kwargs: P.kwargs) -> R:
        with torch.autocast(first.device.type, enabled=False):
            return function(first, *args, **kwargs)

    return call
