"""Reading a checkpoint's pickle without running what it names."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer


def load_safely(path: str, map_location: Any = 'cpu', mmap: bool = False) -> Any:
    """``torch.load(weights_only=True)`` with just what mmengine writes allowed in addition.

    Raises:
        pickle.UnpicklingError: the file asks for anything else.
        RuntimeError, EOFError, ValueError, KeyError: the file is damaged.
    """
    HistoryBuffer()  # the first one fills the class's table of methods
    statistics = dict(HistoryBuffer._statistics_methods)
    try:
        with torch.serialization.safe_globals(_allowed()), warnings.catch_warnings():
            warnings.filterwarnings('ignore', message='Detected pickle protocol')
            loaded = torch.load(
                path,
                map_location=map_location,
                weights_only=True,
                mmap=mmap and zipfile.is_zipfile(path),
            )
    finally:
        # HistoryBuffer unpickles its table of methods into the class itself.
        HistoryBuffer._statistics_methods.clear()
        HistoryBuffer._statistics_methods.update(statistics)
    return _settle(loaded, set())


def unsafe_names(path: str, error: Exception) -> str:
    """The offending names: all of them where the file can be listed, else the first; or ''."""
    names: list[str] = []
    try:
        with torch.serialization.safe_globals(_allowed()):
            names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # noqa: BLE001, S110  old formats and strange pickles cannot be listed
        pass
    match = re.search(r'(?:GLOBAL|operand) ([^\s]+)', str(error))
    return ', '.join(names[:8]) or (match.group(1) if match else '')


def _allowed() -> list:
    """(stand-in, name in the file). None of them runs or imports anything named by the file."""
    pairs: list = [
        (HistoryBuffer, 'mmengine.logging.history_buffer.HistoryBuffer'),
        (_history_method, 'builtins.getattr'),
        (_plain_dict, 'mmengine.config.config.ConfigDict'),
        (_plain_dict, 'collections.defaultdict'),
        (_plain_dict, 'builtins.dict'),
        (_empty_bytes, 'builtins.bytes'),
        (list, 'builtins.list'),
        (int, 'builtins.int'),
        (_Dtype, 'numpy.dtype'),
        (_Array, 'numpy.ndarray'),
    ]
    for core in ('numpy.core', 'numpy._core'):
        pairs.append((_reconstruct, f'{core}.multiarray._reconstruct'))
        pairs.append((_scalar, f'{core}.multiarray.scalar'))
    return pairs


def _history_method(owner: Any, name: str) -> Callable:
    """``getattr``, but only for the statistics a HistoryBuffer always has."""
    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(owner, name)
    raise pickle.UnpicklingError('Unsupported global: GLOBAL builtins.getattr was not allowed')


def _plain_dict(*args: Any) -> dict:
    return dict(args[0]) if args and isinstance(args[0], Mapping) else {}


def _empty_bytes() -> bytes:
    return b''


class _Dtype:
    """Stands for numpy.dtype, whose own unpickling can be abused to forge memory addresses."""

    def __init__(self, code: Any = 'f8', align: bool = False, copy: bool = False) -> None:
        self.code, self.order = code, '='

    def __setstate__(self, state: tuple) -> None:
        if any(state[2:5]):
            raise pickle.UnpicklingError('GLOBAL numpy.dtype of a structured array')
        self.order = state[1]

    def resolve(self) -> np.dtype:
        dtype = np.dtype(self.code if isinstance(self.code, str) else 'O')
        if dtype.kind not in 'biufcSU':
            raise pickle.UnpicklingError(f'GLOBAL numpy.dtype({self.code!r})')
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


def _scalar(dtype: _Dtype, raw: Any) -> np.generic:
    return np.frombuffer(_bytes(raw), dtype=dtype.resolve())[0]


def _bytes(raw: Any) -> bytes:
    if isinstance(raw, str):  # Python 2 wrote bytes as latin-1 text
        raw = raw.encode('latin1')
    if not isinstance(raw, (bytes, bytearray)):
        raise pickle.UnpicklingError('GLOBAL numpy.ndarray of Python objects')
    return bytes(raw)


def _settle(node: Any, seen: set[int]) -> Any:
    """Replace the stand-ins of numpy objects by the real ones, in place where possible."""
    if isinstance(node, _Array):
        return node.value
    if isinstance(node, _Dtype):
        return node.resolve()
    if isinstance(node, HistoryBuffer):
        _settle(node.__dict__, seen)
    elif type(node) is tuple:
        return tuple(_settle(item, seen) for item in node)
    elif isinstance(node, (dict, list)) and id(node) not in seen:
        seen.add(id(node))
        for key, item in list(node.items() if isinstance(node, dict) else enumerate(node)):
            node[key] = _settle(item, seen)
    return node
