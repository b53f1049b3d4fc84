"""mmcv's compiled operators, which read memory as if every tensor were contiguous.

``RoIAlign``, ``RoIPool``, deformable convolutions and others ignore strides: a feature map in
``channels_last`` gives wrong numbers without an error. Autograd hands them such tensors too, as
gradients. They are all called through one extension module, so that is where they get contiguous
tensors.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


@functools.cache
def respect_strides() -> None:
    """Let every operator of mmcv's extension accept tensors of any memory layout, from now on.

    Contiguous tensors are handed on as they are, so results do not change by a bit. Without
    compiled operators (mmcv-lite) nothing is done.
    """
    try:
        import mmcv._ext as extension
    except ImportError:
        return
    for name, operator in vars(extension).copy().items():
        if inspect.isbuiltin(operator):
            setattr(extension, name, contiguous(operator))


def contiguous(operator: Callable) -> Callable:
    """The same operator for tensors of any strides.

    An operator that returns nothing writes into its arguments. If such an argument had to be
    copied (``torch.zeros_like`` keeps a layout), the result is copied back.
    """

    @functools.wraps(operator)
    def call(*args: Any, **kwargs: Any) -> Any:
        copies: list[tuple[Tensor, Tensor]] = []

        def plain(value: Any) -> Any:
            if not isinstance(value, Tensor) or value.is_contiguous():
                return value
            copies.append((value, value.contiguous()))
            return copies[-1][1]

        result = operator(*map(plain, args), **{k: plain(v) for k, v in kwargs.items()})
        if result is None:
            for original, copy in copies:
                _write_back(original, copy)
        return result

    return call


def _write_back(original: Tensor, copy: Tensor) -> None:
    if any(
        step == 0 and size > 1 for step, size in zip(original.stride(), original.shape, strict=True)
    ):
        return  # expanded: one number in several places, never an output
    with torch.no_grad():
        original.data.copy_(copy)  # an input gets its own values: autograd need not know
