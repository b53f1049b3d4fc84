"""Replacements for the types in plain files, with functions that check their arguments."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from mmengine.logging import HistoryBuffer


class Unsafe(Exception):
    """Something that a plain file does not need; ``str()`` is its name."""


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


class Dtype:
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


class Array:
    """Stands for numpy.ndarray while unpickling; replaced by a real array afterwards."""

    value: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, raw = state
        flat = np.frombuffer(_bytes(raw), dtype=dtype.resolve())
        self.value = flat.reshape(shape, order='F' if fortran else 'C').copy('K')


def _reconstruct(kind: Any, shape: Any, code: Any) -> Array:
    return Array()


def _frombuffer(raw: Any, dtype: Dtype, shape: Any, order: str) -> Array:
    made = Array()
    made.__setstate__((1, shape, dtype, order == 'F', raw))
    return made


class Bag:
    """Stands for mmengine's InstanceData; replaced by one with the same attributes."""


def _scalar(dtype: Dtype, raw: Any) -> np.generic:
    return np.frombuffer(_bytes(raw), dtype=dtype.resolve())[0]


def _bytes(raw: Any) -> bytes:
    if isinstance(raw, str):  # Python 2 wrote bytes as latin-1 text
        raw = raw.encode('latin1')
    if not isinstance(raw, (bytes, bytearray)):
        raise Unsafe('numpy.ndarray of Python objects')
    return bytes(raw)


STAND_INS: dict[str, Any] = {
    'mmengine.logging.history_buffer.HistoryBuffer': HistoryBuffer,
    'builtins.getattr': _history_method,
    'mmengine.config.config.ConfigDict': _plain_dict,
    'collections.defaultdict': _plain_dict,
    'builtins.dict': _plain_dict,
    'builtins.bytes': _empty_bytes,
    'builtins.list': list,
    'builtins.int': int,
    'numpy.dtype': Dtype,
    'numpy.ndarray': Array,
}
for _core in ('numpy.core', 'numpy._core'):
    STAND_INS[f'{_core}.multiarray._reconstruct'] = _reconstruct
    STAND_INS[f'{_core}.multiarray.scalar'] = _scalar
    STAND_INS[f'{_core}.numeric._frombuffer'] = _frombuffer


def plain_table() -> dict[str, Any]:
    """The types and functions that a pickle of annotations may use, by name.

    Made anew for each file: Python's unpickler lets a pickle change what it has imported.
    """
    bag = type('Bag', (Bag,), {})
    array = type('Array', (Array,), {})
    table: dict[str, Any] = {
        '_codecs.encode': lambda text, encoding: text.encode('latin1'),
        'builtins.bytearray': lambda raw=b'', encoding='latin1': bytearray(_bytes(raw)),
        'builtins.bytes': lambda: b'',
        'builtins.complex': complex,
        'builtins.dict': dict,
        'builtins.frozenset': frozenset,
        'builtins.list': list,
        'builtins.object': object,
        'builtins.set': set,
        'collections.OrderedDict': OrderedDict,
        'collections.defaultdict': lambda *args: _plain_dict(*args),
        'copyreg._reconstructor': lambda kind, base, state: kind(),
        'mmengine.config.config.ConfigDict': lambda *args: _plain_dict(*args),
        'mmengine.structures.instance_data.InstanceData': bag,
        'numpy.dtype': type('Dtype', (Dtype,), {}),
        'numpy.ndarray': array,
    }
    for core in ('numpy.core', 'numpy._core'):
        table[f'{core}.multiarray._reconstruct'] = lambda *args: array()
        table[f'{core}.multiarray.scalar'] = lambda *args: _scalar(*args)
        table[f'{core}.numeric._frombuffer'] = lambda *args: _frombuffer(*args)
    return table
