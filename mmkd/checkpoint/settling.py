"""Replaces the stand-ins in the result of an unpickler by the real objects."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from typing import Any

import torch
from mmengine.logging import HistoryBuffer
from mmengine.structures import InstanceData

from mmkd.checkpoint.scanning import MAX_DEPTH
from mmkd.checkpoint.stand_ins import Array, Bag, Dtype

_SLACK = 2**28  # bytes by which an expanded tensor may be larger than the file


def settle(loaded: Any, size: int) -> Any:
    """Replace the stand-ins of numpy objects by the real ones, in place where possible.

    Args:
        loaded: the result of an unpickler.
        size (int): bytes of the file.

    Raises:
        UnpicklingError: a nesting or a tensor that only a file made to exhaust memory has.
    """
    return _Settler(size).settle(loaded, 0)


def _odd_versions(state: OrderedDict) -> set[str]:
    """The versions of modules, if they are no mapping from paths to whole numbers."""
    versions = vars(state).get('_metadata', {})
    right = isinstance(versions, dict) and all(
        isinstance(key, str)
        and isinstance(entry, dict)
        and isinstance(entry.get('version'), (int, type(None)))
        for key, entry in versions.items()
    )
    return set() if right else {'_metadata'}


class _Settler:
    def __init__(self, size: int) -> None:
        self.size = size
        self.done: dict[int, tuple[Any, Any]] = {}  # with the old object, so that its id lasts

    def settle(self, node: Any, depth: int) -> Any:
        if isinstance(node, Array):
            return node.value
        if isinstance(node, Dtype):
            return node.resolve()
        if isinstance(node, torch.Tensor):
            return self.checked(node)
        if not isinstance(node, (dict, list, tuple, HistoryBuffer, Bag)):
            return node
        if id(node) in self.done:
            return self.done[id(node)][1]
        if depth > MAX_DEPTH:
            raise pickle.UnpicklingError(f'containers are nested more than {MAX_DEPTH} deep')
        made: Any = node
        if isinstance(node, Bag):
            made = InstanceData.__new__(InstanceData)
            vars(made).update(vars(node))
        if type(node) is tuple:
            made = tuple(self.settle(item, depth + 1) for item in node)
        self.done[id(node)] = node, made
        self.fill(made, depth + 1)
        return made

    def fill(self, node: Any, depth: int) -> None:
        """Settle the contents of a mutable object."""
        if isinstance(node, OrderedDict):  # its methods stay its own
            for key in vars(node).keys() - {'_metadata'} | _odd_versions(node):
                del vars(node)[key]
        if isinstance(node, (HistoryBuffer, InstanceData)):
            node = vars(node)
        if isinstance(node, (dict, list)):
            for key, item in list(node.items() if isinstance(node, dict) else enumerate(node)):
                node[key] = self.settle(item, depth)

    def checked(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor whose numbers exist; a stored one may be repeated, but not without end."""
        wanted = tensor.numel() * tensor.element_size()
        if tensor.layout == torch.strided and not tensor.is_meta and wanted > self.size + _SLACK:
            raise pickle.UnpicklingError(f'a tensor of {wanted} bytes in a file of {self.size}')
        return tensor
