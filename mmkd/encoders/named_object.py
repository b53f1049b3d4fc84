"""An object of Python by its place: of a module, or of a file."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any


def named_object(owner: str, name: str) -> Any:
    """The object that ``'package.module:name'`` or ``'path/file.py:name'`` names.

    The module is imported, as if a program did it. A file is imported once.

    Args:
        owner (str): for messages.

    Raises:
        TypeError: text of another form.
        ValueError: no such module, file or name.
    """
    module, colon, attribute = name.rpartition(':')
    if not colon or not module or not attribute.isidentifier():
        raise TypeError(
            f"{owner} must be 'package.module:name' or 'path/file.py:name', found {name!r}."
        )
    load = _file if module.endswith('.py') else importlib.import_module
    try:
        return getattr(load(module), attribute)
    except (ImportError, AttributeError, FileNotFoundError) as error:
        raise ValueError(f'{owner}: there is no {name!r} ({error}).') from None


def _file(path: str) -> Any:
    file = Path(path).expanduser().resolve()
    known = f'mmkd_file_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}'
    if known in sys.modules:
        return sys.modules[known]
    spec = importlib.util.spec_from_file_location(known, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[known] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[known]
        raise
    return module
