"""One file per paper. Importing this package registers every method; a new file needs no entry."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from mmkd.registry import MODELS

if TYPE_CHECKING:
    from mmkd.objective import Objective

for _file in iter_modules(__path__):
    import_module(f'{__name__}.{_file.name}')

_METHODS = {
    name: method
    for name, method in MODELS.module_dict.items()
    if method.__module__.startswith(f'{__name__}.')
}


def names() -> list[str]:
    """Names under which methods are registered in scope ``mmkd``, in alphabetical order."""
    return sorted(_METHODS, key=str.lower)


def __getattr__(name: str) -> type[Objective]:
    """The method of this name: ``from mmkd.methods import FGFI``."""
    try:
        return _METHODS[name]
    except KeyError:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}') from None


def __dir__() -> list[str]:
    return [*globals(), *_METHODS]
