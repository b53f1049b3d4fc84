"""mmcv's compiled operators, which read memory as if every tensor were contiguous.

``RoIAlign``, ``RoIPool``, deformable convolutions and others ignore strides: a feature map in
``channels_last`` gives wrong numbers without an error. Autograd hands them such tensors too, as
gradients. They are all called through one extension module, so that is where they get contiguous
tensors, and float32 ones where they have no kernel for bfloat16 or float16.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mmkd.operators.precision import LOW

#: errors of operators that lack a precision, or lack it beside another
NO_KERNEL = ('not implemented for', 'expected scalar type')


def contiguous(operator: Callable) -> Callable:
    """The same operator for tensors of any strides, and of precisions that it does not have.

    An operator that returns nothing writes into its arguments. If such an argument had to be
    copied (``torch.zeros_like`` keeps a layout), the result is copied back.
    """

    @functools.wraps(operator)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return _run(operator, args, kwargs, lambda tensor: tensor.contiguous())
        except RuntimeError as error:
            low = {t.dtype for t in (*args, *kwargs.values()) if isinstance(t, Tensor)} & LOW
            if len(low) != 1 or not any(text in str(error) for text in NO_KERNEL):
                raise
        result = _run(operator, args, kwargs, _in_float32)
        is_float = isinstance(result, Tensor) and result.dtype == torch.float32
        return result.to(low.pop()) if is_float else result

    return call


def _run(
    operator: Callable, args: tuple, kwargs: dict[str, Any], plain: Callable[[Tensor], Tensor]
) -> Any:
    """Call an operator with its tensors changed by ``plain``."""
    copies: list[tuple[Tensor, Tensor]] = []

    def hand_on(value: Any) -> Any:
        if not isinstance(value, Tensor) or (copy := plain(value)) is value:
            return value
        copies.append((value, copy))
        return copy

    result = operator(*map(hand_on, args), **{k: hand_on(v) for k, v in kwargs.items()})
    if result is None:
        for original, copy in copies:
            _write_back(original, copy)
    return result


def _in_float32(tensor: Tensor) -> Tensor:
    return (tensor.float() if tensor.dtype in LOW else tensor).contiguous()


def _write_back(original: Tensor, copy: Tensor) -> None:
    if any(
        step == 0 and size > 1 for step, size in zip(original.stride(), original.shape, strict=True)
    ):
        return  # expanded: one number in several places, never an output
    with torch.no_grad():
        original.data.copy_(copy)  # an input gets its own values: autograd need not know
