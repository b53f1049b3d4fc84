"""Tensors in nested tuples, lists and mappings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor


def flatten(value: Any) -> list[Tensor]:
    """Every tensor in nested tuples, lists and mappings, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return []
    return [tensor for item in value for tensor in flatten(item)]


def map_tensors(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """``function`` of every tensor in nested tuples, lists and mappings, which keep their form."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: map_tensors(item, function) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, '_fields'):
        return type(value)(map_tensors(item, function) for item in value)
    return value
