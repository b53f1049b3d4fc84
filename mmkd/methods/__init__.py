"""One file per paper; a new file needs no entry here.

A method is imported when it is asked for by name, which is read off the sources: a run needs one or
two of them.
"""

from __future__ import annotations

import re
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from mmkd.registry import MODELS

if TYPE_CHECKING:
    from mmkd.objective import Objective

_REGISTERED = re.compile(r'^@MODELS\.register_module\(.*\)\n(?:@.*\n)*class (\w+)', re.MULTILINE)


def _read_names() -> dict[str, str]:
    """The module of each method; of files without a source, as some installers leave, all."""
    found = {}
    for file in iter_modules(__path__):
        module = f'{__name__}.{file.name}'
        spec: Any = file.module_finder.find_spec(file.name, None)
        source = spec.loader.get_source(file.name)
        if source is None:
            before = {*MODELS.module_dict}
            import_module(module)
            found |= dict.fromkeys({*MODELS.module_dict} - before, module)
        else:
            found |= dict.fromkeys(_REGISTERED.findall(source), module)
    return found


_MODULES = _read_names()
MODELS.postpone(_MODULES)


def names() -> list[str]:
    """Names under which methods are registered in scope ``mmkd``, in alphabetical order."""
    return sorted(_MODULES, key=str.lower)


def __getattr__(name: str) -> type[Objective]:
    """The method of this name: ``from mmkd.methods import FGFI``."""
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_MODULES]
