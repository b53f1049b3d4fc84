"""Annotations and proposals in pickle or YAML files of mmengine: plain data only.

mmengine's handlers of ``.pkl`` and ``.yaml`` run the code that a file names. Those here replace
them when mmkd is imported.
"""

from __future__ import annotations

import io
import os
import pickle
from typing import Any, BinaryIO, TextIO

import numpy as np
import yaml
from mmengine.fileio.handlers import PickleHandler, YamlHandler, file_handlers

from mmkd.checkpoint.checkpoint_error import CheckpointError, first_line
from mmkd.checkpoint.scanning import full_name, scan
from mmkd.checkpoint.settling import settle
from mmkd.checkpoint.stand_ins import Unsafe, plain_table
from mmkd.checkpoint.trust import trusted

try:
    from yaml import CSafeLoader as SafeLoader
except ImportError:
    from yaml import SafeLoader  # type: ignore[assignment]


_SCANNED = 2**21  # bytes; of a larger pickle only the names are checked, as that takes no time


class PlainPickleHandler(PickleHandler):
    """Plain values, NumPy arrays and mmdet's proposals; anything else needs trust."""

    def load_from_fileobj(self, file: BinaryIO, **kwargs: Any) -> Any:
        return super().load_from_fileobj(file, **kwargs) if trusted() else unpickle(file, **kwargs)


class PlainYamlHandler(YamlHandler):
    """Plain values and tuples; other Python objects need trust."""

    def load_from_fileobj(self, file: TextIO, **kwargs: Any) -> Any:
        if not trusted():
            kwargs.setdefault('Loader', _TupleLoader)
        try:
            return super().load_from_fileobj(file, **kwargs)
        except yaml.constructor.ConstructorError as error:
            name = getattr(file, 'name', 'a YAML file')
            raise CheckpointError(
                f'{name} is refused: {error.problem}, which could run any program. If you '
                'trust whoever made the file, pass --trust-checkpoint.'
            ) from None


class _TupleLoader(SafeLoader):
    """YAML's safe subset, and tuples, which configs have."""


_TupleLoader.add_constructor(
    'tag:yaml.org,2002:python/tuple', lambda loader, node: tuple(loader.construct_sequence(node))
)


def guard_file_handlers() -> None:
    """Let ``mmengine.load`` read ``.pkl`` and ``.yaml`` without running code in them."""
    for ending in ('pkl', 'pickle'):
        file_handlers[ending] = PlainPickleHandler()
    for ending in ('yaml', 'yml'):
        file_handlers[ending] = PlainYamlHandler()


def check_plain(path: str) -> None:
    """Read a pickle or YAML file once, where its name is still known; other files are not checked.

    Raises:
        CheckpointError: it is damaged, or asks for more than plain values.
    """
    handler = file_handlers.get(path.rpartition('.')[2])
    if (
        isinstance(handler, PlainPickleHandler)
        and os.path.getsize(path) <= _SCANNED
        or isinstance(handler, PlainYamlHandler)
    ):
        handler.load_from_path(path)
    elif path.endswith(('.npy', '.npz', '.np')) and not trusted():
        _check_array(path)


def _check_array(path: str) -> None:
    try:
        np.load(path, allow_pickle=False, mmap_mode='r')
    except (ValueError, EOFError) as error:
        raise CheckpointError(
            f'{path} is refused: {first_line(error)}. Arrays of numbers are read; if you trust '
            'whoever made the file, pass --trust-checkpoint.'
        ) from None


def unpickle(file: BinaryIO, **options: Any) -> Any:
    """Load a pickle of plain values and arrays, of any protocol.

    Args:
        file: open for reading.
        options: as for :func:`pickle.load`, e.g. ``encoding='latin1'``.

    Raises:
        CheckpointError: it is damaged, or names anything else.
    """
    content = file.read()
    name = getattr(file, 'name', 'a pickle file')
    table = plain_table()
    unsafe: list[str] = []
    try:
        if len(content) <= _SCANNED:
            found = scan(io.BytesIO(content))
            unsafe = sorted((found.names | found.calls) - table.keys())
            if found.odd and not unsafe:
                raise pickle.UnpicklingError(found.odd[0])
        if not unsafe:
            loaded = _Unpickler(table, io.BytesIO(content), **options).load()
            return settle(loaded, len(content))
    except Unsafe as error:
        unsafe = [str(error)]
    except Exception as error:  # noqa: BLE001  damaged bytes can raise anything
        raise CheckpointError(f'{name} is truncated or damaged ({first_line(error)}).') from None
    raise CheckpointError(
        f'{name} is refused: loading it needs {", ".join(unsafe[:8])}, and only plain values and '
        'NumPy arrays are read from pickles, which can run any program. If you trust whoever made '
        'the file, pass --trust-checkpoint.'
    )


class _Unpickler(pickle.Unpickler):
    def __init__(self, table: dict[str, Any], file: BinaryIO, **options: Any) -> None:
        super().__init__(file, **options)
        self.table = table

    def find_class(self, module: str, name: str) -> Any:
        full = full_name(module, name)
        if full not in self.table:
            raise Unsafe(full)
        return self.table[full]
