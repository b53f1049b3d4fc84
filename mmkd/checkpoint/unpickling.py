"""Rebuilding what a pickle holds, from the few things that plain data need and nothing else."""

from __future__ import annotations

import os
import pickle
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from importlib.machinery import PathFinder
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.structures import InstanceData

from mmkd.checkpoint.archives import is_archive
from mmkd.checkpoint.scanning import MAX_DEPTH, Contents

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
_SLACK = 2**28  # bytes by which an expanded tensor may be larger than the file


class Unsafe(Exception):
    """Something that a plain file does not need; ``str()`` is its name."""


def load_safely(path: str, map_location: Any = 'cpu', mmap: bool = False) -> Any:
    """``torch.load(weights_only=True)`` with just what mmengine writes allowed in addition.

    Raises:
        Unsafe: the file asks for anything else.
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
    """What a torch file names, or calls, beyond tensors and plain values."""
    return sorted(
        n for n in contents.names | contents.calls if n not in STAND_INS and not _is_torch(n)
    )


def misused_names(contents: Contents) -> list[str]:
    """What a torch file calls although it is no function: types of tensors and numbers."""
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


def _history_method(owner: Any, name: str) -> Callable:
    """``getattr``, but only for the statistics a HistoryBuffer always has."""
    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(owner, name)
    if owner is HistoryBuffer and not hasattr(owner, str(name)):
        raise pickle.UnpicklingError('a HistoryBuffer has no such statistics')
    raise Unsafe('builtins.getattr')


def _plain_dict(*args: Any) -> dict:
    return dict(args[0]) if args and isinstance(args[0], Mapping) else {}


def _empty_bytes() -> bytes:
    return b''


class _Dtype:
    """Stands for numpy.dtype, whose own unpickling can be abused to forge memory addresses."""

    def __init__(self, code: Any = 'f8', align: bool = False, copy: bool = False) -> None:
        self.code, self.order = code, '='

    def __setstate__(self, state: tuple) -> None:
        if isinstance(state[2], tuple) or isinstance(state[4], dict):
            raise Unsafe('numpy.dtype of a structured array')
        if any(state[2:5]):
            raise pickle.UnpicklingError('a dtype of no kind')
        self.order = state[1]

    def resolve(self) -> np.dtype:
        dtype = np.dtype(self.code if isinstance(self.code, str) else 'O')
        if dtype.kind not in 'biufcSU':
            raise Unsafe(f'numpy.dtype({self.code!r:.20})')
        return dtype.newbyteorder(self.order) if self.order in '<>' else dtype  # type: ignore[arg-type]


class _Array:
    """Stands for numpy.ndarray while unpickling; replaced by a real array afterwards."""

    value: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, raw = state
        flat = np.frombuffer(_bytes(raw), dtype=dtype.resolve())
        self.value = flat.reshape(shape, order='F' if fortran else 'C').copy('K')


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    return _Array()


def _frombuffer(raw: Any, dtype: _Dtype, shape: Any, order: str) -> _Array:
    made = _Array()
    made.__setstate__((1, shape, dtype, order == 'F', raw))
    return made


def _scalar(dtype: _Dtype, raw: Any) -> np.generic:
    return np.frombuffer(_bytes(raw), dtype=dtype.resolve())[0]


def _bytes(raw: Any, encoding: str = 'latin1') -> bytes:
    if isinstance(raw, str):  # Python 2 wrote bytes as latin-1 text
        raw = raw.encode('latin1')
    if not isinstance(raw, (bytes, bytearray)):
        raise Unsafe('numpy.ndarray of Python objects')
    return bytes(raw)


def _encode(text: str, encoding: str) -> bytes:
    return text.encode('latin1' if encoding == 'latin1' else 'utf-8')


STAND_INS: dict[str, Any] = {
    'mmengine.logging.history_buffer.HistoryBuffer': HistoryBuffer,
    'builtins.getattr': _history_method,
    'mmengine.config.config.ConfigDict': _plain_dict,
    'collections.defaultdict': _plain_dict,
    'builtins.dict': _plain_dict,
    'builtins.bytes': _empty_bytes,
    'builtins.list': list,
    'builtins.int': int,
    'numpy.dtype': _Dtype,
    'numpy.ndarray': _Array,
}
for _core in ('numpy.core', 'numpy._core'):
    STAND_INS[f'{_core}.multiarray._reconstruct'] = _reconstruct
    STAND_INS[f'{_core}.multiarray.scalar'] = _scalar
    STAND_INS[f'{_core}.numeric._frombuffer'] = _frombuffer


def _new_instance(kind: Any, base: Any, state: Any) -> InstanceData:
    if kind is not InstanceData:
        raise Unsafe('copyreg._reconstructor')
    return InstanceData.__new__(InstanceData)


# The same and a few types more for files that torch has not written, all of them rebuilt here.
PLAIN: dict[str, Any] = STAND_INS | {
    '_codecs.encode': _encode,
    'builtins.bytearray': _bytes,
    'builtins.complex': complex,
    'builtins.frozenset': frozenset,
    'builtins.object': object,
    'builtins.set': set,
    'collections.OrderedDict': OrderedDict,
    'copyreg._reconstructor': _new_instance,
    'mmengine.structures.instance_data.InstanceData': InstanceData,
}


def settle(loaded: Any, size: int) -> Any:
    """Replace the stand-ins of numpy objects by the real ones, in place where possible.

    Args:
        loaded: what an unpickler has made.
        size (int): bytes of the file.

    Raises:
        UnpicklingError: a nesting or a tensor that only a file made to exhaust memory has.
    """
    return _Settler(size).settle(loaded, 0)


class _Settler:
    def __init__(self, size: int) -> None:
        self.size = size
        self.done: dict[int, tuple[Any, Any]] = {}  # with the old object, so that its id lasts

    def settle(self, node: Any, depth: int) -> Any:
        if isinstance(node, _Array):
            return node.value
        if isinstance(node, _Dtype):
            return node.resolve()
        if isinstance(node, torch.Tensor):
            return self.checked(node)
        if not isinstance(node, (dict, list, tuple, HistoryBuffer, InstanceData)):
            return node
        if id(node) in self.done:
            return self.done[id(node)][1]
        if depth > MAX_DEPTH:
            raise pickle.UnpicklingError(f'containers are nested more than {MAX_DEPTH} deep')
        made: Any = node
        if type(node) is tuple:
            made = tuple(self.settle(item, depth + 1) for item in node)
        self.done[id(node)] = node, made
        self.fill(made, depth + 1)
        return made

    def fill(self, node: Any, depth: int) -> None:
        """Settle what a mutable object holds."""
        if isinstance(node, OrderedDict):  # its methods stay its own
            for key in vars(node).keys() - {'_metadata'}:
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
