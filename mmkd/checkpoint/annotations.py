"""Annotations and proposals: what mmengine reads with pickle or YAML holds plain data only.

mmengine's handlers of ``.pkl`` and ``.yaml`` run the code that a file names. Those here replace
them when mmkd is imported.
"""

from __future__ import annotations

import io
import pickle
from typing import Any, BinaryIO, TextIO

import yaml
from mmengine.fileio.handlers import PickleHandler, YamlHandler, file_handlers

from mmkd.checkpoint.errors import CheckpointError, first_line
from mmkd.checkpoint.scanning import full_name, scan
from mmkd.checkpoint.trust import trusted
from mmkd.checkpoint.unpickling import PLAIN, Unsafe, settle

try:
    from yaml import CSafeLoader as SafeLoader
except ImportError:
    from yaml import SafeLoader  # type: ignore[assignment]


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
            raise CheckpointError(
                f'a YAML file is refused: {error.problem}, which could run any program. If you '
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
    try:
        found = scan(io.BytesIO(content))
        unsafe = sorted((found.names | found.calls) - PLAIN.keys())
        if not unsafe and not found.odd:
            loaded = _Unpickler(io.BytesIO(content), **options).load()
            return settle(loaded, len(content))
    except Unsafe as error:
        unsafe = [str(error)]
    except Exception as error:  # noqa: BLE001  damaged bytes can raise anything
        raise CheckpointError(f'{name} is truncated or damaged ({first_line(error)}).') from None
    if not unsafe:
        raise CheckpointError(f'{name} is truncated or damaged ({found.odd[0]}).')
    raise CheckpointError(
        f'{name} is refused: loading it needs {", ".join(unsafe[:8])}, and only plain values and '
        'NumPy arrays are read from pickles, which can run any program. If you trust whoever made '
        'the file, pass --trust-checkpoint.'
    )


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        full = full_name(module, name)
        if full not in PLAIN:
            raise Unsafe(full)
        return PLAIN[full]
