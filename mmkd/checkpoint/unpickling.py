"""Loads files of torch with the few types that plain data need, and no others."""

from __future__ import annotations

import os
import pickle
import sys
import warnings
from importlib.machinery import PathFinder
from importlib.util import find_spec
from typing import Any

import torch
from mmengine.logging import HistoryBuffer

from mmkd.checkpoint.archives import is_archive
from mmkd.checkpoint.scanning import Contents
from mmkd.checkpoint.settling import settle
from mmkd.checkpoint.stand_ins import STAND_INS

# What torch.load(weights_only=True) rebuilds tensors with, as far as a file cannot ask for memory
# that its data do not fill.
_TORCH_CALLS = {
    '_codecs.encode',
    'builtins.complex',
    'builtins.set',
    'collections.Counter',
    'collections.OrderedDict',
    'torch.Size',
    'torch.device',
    'torch.nn.parameter.Parameter',
    'torch.serialization._get_layout',
    'torch._tensor._rebuild_from_type_v2',
    *(
        f'torch._utils._rebuild_{kind}'
        for kind in (
            'tensor',
            'tensor_v2',
            'tensor_v3',
            'parameter',
            'parameter_with_state',
            'qtensor',
            'sparse_tensor',
        )
    ),
}


def load_safely(path: str, map_location: Any = 'cpu', mmap: bool = False) -> Any:
    """``torch.load(weights_only=True)`` that also allows the types that mmengine writes.

    Raises:
        Unsafe: the file needs anything else.
        pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError: it is damaged.
    """
    HistoryBuffer()  # the first one fills the class's table of methods
    statistics = dict(HistoryBuffer._statistics_methods)
    pairs = [(stand_in, name) for name, stand_in in STAND_INS.items()]
    try:
        with torch.serialization.safe_globals(pairs), warnings.catch_warnings():
            warnings.filterwarnings('ignore', message='Detected pickle protocol')
            loaded = torch.load(
                path,
                map_location=map_location,
                weights_only=True,
                mmap=mmap and is_archive(path),
            )
    except pickle.UnpicklingError as error:  # torch's reason stands inside its advice
        reason = str(error).rpartition('WeightsUnpickler error: ')[2]
        raise pickle.UnpicklingError(reason) from None
    finally:
        # HistoryBuffer unpickles its table of methods into the class itself.
        HistoryBuffer._statistics_methods.clear()
        HistoryBuffer._statistics_methods.update(statistics)
    return settle(loaded, os.path.getsize(path))


def unsafe_names(contents: Contents) -> list[str]:
    """Names and calls in a torch file beyond tensors and plain values."""
    return sorted(
        n for n in contents.names | contents.calls if n not in STAND_INS and not _is_torch(n)
    )


def misused_names(contents: Contents) -> list[str]:
    """Calls in a torch file of names that are not functions: types of tensors and numbers."""
    return sorted(n for n in contents.calls if _is_torch(n) and n not in _TORCH_CALLS)


def _is_torch(name: str) -> bool:
    package, _, last = name.rpartition('.')
    if package in ('torch', 'torch.cuda', 'torch.storage'):
        found = getattr(torch, last, None)
        kinds = (torch.dtype, torch.qscheme)
        if isinstance(found, kinds) or last.endswith('Storage') or last == 'Tensor':
            return True
    return name in _TORCH_CALLS


def exists_here(name: str) -> bool:
    """Whether ``module.attribute`` could be imported here, found out without importing it."""
    parts = name.removesuffix('()').split('.')
    if not all(part.isidentifier() for part in parts):
        return False
    for end in range(len(parts) - 1, 0, -1):
        parent = sys.modules.get('.'.join(parts[:end]))
        if parent is not None:
            inside = getattr(parent, '__path__', None)
            full = '.'.join(parts[: end + 1])
            return hasattr(parent, parts[end]) or bool(
                inside and end < len(parts) - 1 and PathFinder.find_spec(full, inside)
            )
    return len(parts) > 1 and find_spec(parts[0]) is not None
