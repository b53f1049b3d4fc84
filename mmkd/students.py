"""The student in the config of a Distiller, and the edits that it goes through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mmengine.config import ConfigDict
from torch import nn

from mmkd.config import distils, type_name
from mmkd.names import did_you_mean
from mmkd.options import read_options
from mmkd.registry import MODELS

Edit = Callable[[nn.Module], nn.Module]


def student_of(model: Mapping[str, Any]) -> Any:
    """The student in the mapping of a Distiller, with those edits that its weights do not carry."""
    return deployed_as(model['student'], model.get('edits'))


def deployed(model: Any) -> Any:
    """The network of a run: the student where the model's config is a Distiller's, else that."""
    return student_of(model) if distils(model) else model


def deployed_as(model: Any, edits: Any) -> Any:
    """A model's config with those edits that the saved weights do not carry."""
    kept = [entry for entry in edits or () if not in_weights(build_edit(entry))]
    return ConfigDict(type='mmkd.Edited', model=model, edits=kept) if kept else model


def import_edits(config: Any) -> None:
    """Let a config whose model is edited import mmkd, so that stock tools can build it."""
    if is_edited(config.get('model')):
        others = (config.get('custom_imports') or {}).get('imports') or []
        every = ['mmkd', *(one for one in others if one != 'mmkd')]
        config.custom_imports = dict(imports=every, allow_failed_imports=False)


def is_edited(model: Any) -> bool:
    """Whether a model's config is that of ``mmkd.Edited``."""
    return isinstance(model, Mapping) and type_name(model) == 'Edited'


def build_edit(entry: Any) -> Edit:
    """One edit from its entry in a config.

    Raises:
        TypeError, ValueError: no edit; unknown or unsuitable options.
    """
    edit = entry
    if isinstance(entry, Mapping):
        kind = entry.get('type')
        cls: Any = MODELS.get(kind) if isinstance(kind, str) else kind
        if not isinstance(cls, type):
            known = known_edits()
            hint = did_you_mean(str(kind).rpartition('.')[2], known)
            raise ValueError(
                f'edits: type={kind!r} is not registered. Edits of mmkd: {", ".join(known)}.{hint}'
            )
        edit = None if issubclass(cls, nn.Module) else cls(**read_options(cls, entry))
    if isinstance(edit, nn.Module) or not callable(edit):
        raise TypeError(
            f'edits: {entry!r} is no edit. An edit takes a network and returns it: '
            "dict(type='mmkd.FakeQuant', …) or a function."
        )
    return edit


def known_edits() -> list[str]:
    """Names of the edits that mmkd has."""
    found = {name: cls for name, cls in MODELS.module_dict.items() if hasattr(cls, '__module__')}
    return sorted(
        name
        for name, cls in found.items()
        if isinstance(cls, type)
        and cls.__module__.startswith('mmkd.edits.')
        and not issubclass(cls, nn.Module)
    )


def name_of(edit: Edit) -> str:
    """The class of an edit, or the function's name."""
    return getattr(edit, '__name__', type(edit).__name__)


def in_weights(edit: Edit) -> bool:
    """Whether the saved weights carry all that an edit does, so that the plain model is enough."""
    return bool(getattr(edit, 'in_weights', False))
