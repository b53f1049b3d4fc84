"""Annotation files in formats that can run a program: read once with nothing but plain values."""

from __future__ import annotations

import pickle
from typing import Any

from mmkd.datasets._coco import DataError

# What lists, numbers, text and arrays are made of.
PLAIN = {
    ('_codecs', 'encode'),
    ('builtins', 'bytearray'),
    ('builtins', 'complex'),
    ('builtins', 'frozenset'),
    ('builtins', 'set'),
    ('builtins', 'slice'),
    ('collections', 'OrderedDict'),
    ('numpy', 'dtype'),
    ('numpy', 'ndarray'),
    ('mmengine.structures.instance_data', 'InstanceData'),
    *(
        (f'{core}.multiarray', one)
        for core in ('numpy.core', 'numpy._core')
        for one in ('_reconstruct', 'scalar')
    ),
    *((f'{core}.numeric', '_frombuffer') for core in ('numpy.core', 'numpy._core')),
}


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in PLAIN:
            raise pickle.UnpicklingError(f'it needs {module}.{name}')
        return super().find_class(module, name)


def check_plain(path: str) -> None:
    """Stop at a pickle or a YAML file that holds more than plain values; mmengine would run it.

    Raises:
        DataError: With what the file asks for.
    """
    try:
        if path.endswith(('.pkl', '.pickle')):
            with open(path, 'rb') as stream:
                _Plain(stream).load()
        elif path.endswith(('.yaml', '.yml')):
            import yaml

            with open(path, encoding='utf-8') as stream:
                yaml.safe_load(stream)
    except Exception as error:
        raise DataError(
            f'annotation file {path} is refused: {error}. Only plain values and arrays are read; '
            'anything else could run a program. Write it as .json'
        ) from None
