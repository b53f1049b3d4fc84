"""Child registries of mmengine's, scope ``mmkd``: write ``type='mmkd.FGFI'`` in any config."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from mmengine import registry as root
from mmengine.registry import Registry as MMRegistry

from mmkd.names import find_name


class Registry(MMRegistry):
    """mmengine's registry with names in any case, if only one entry matches.

    Entries may be postponed: their module is imported when they are asked for by name.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.postponed: dict[str, str] = {}

    def postpone(self, modules: Mapping[str, str]) -> None:
        """Announce entries, by name, and the modules that register them."""
        self.postponed |= modules

    def import_postponed(self) -> None:
        """Import whatever has been announced, for those who need all entries."""
        self.import_from_location()
        for name in self.postponed:
            self._import(name)

    def get(self, key: str) -> Any:
        """The class or function of this name, None where there is none."""
        scope, name = self.split_scope_key(key)
        own = scope in (None, self.scope)
        if own:
            self.import_from_location()
            self._import(name)
        found = super().get(key)
        if found is None and own:
            name = find_name(name, [*self.module_dict, *self.postponed]) or name
            self._import(name)
            found = self.module_dict.get(name)
        return found

    def _import(self, name: str) -> None:
        if name in self.postponed and name not in self.module_dict:
            import_module(self.postponed[name])


_ENGINE = ['mmkd.engine.launch']  # imports every hook, loop and Runner

MODELS = Registry(
    'model',
    parent=root.MODELS,
    scope='mmkd',
    locations=['mmkd.distiller', 'mmkd.edits', 'mmkd.methods', 'mmkd.models'],
)
RUNNERS = Registry('runner', parent=root.RUNNERS, scope='mmkd', locations=_ENGINE)
LOOPS = Registry('loop', parent=root.LOOPS, scope='mmkd', locations=_ENGINE)
HOOKS = Registry('hook', parent=root.HOOKS, scope='mmkd', locations=_ENGINE)
DATASETS = Registry('dataset', parent=root.DATASETS, scope='mmkd', locations=['mmkd.datasets'])
TRANSFORMS = Registry(
    'transform', parent=root.TRANSFORMS, scope='mmkd', locations=['mmkd.datasets']
)
DATA_SAMPLERS = Registry(
    'data sampler', parent=root.DATA_SAMPLERS, scope='mmkd', locations=['mmkd.datasets.samplers']
)
MAKERS = Registry('maker', scope='mmkd', locations=['mmkd.makers'])
METRICS = Registry('metric', parent=root.METRICS, scope='mmkd', locations=['mmkd.evaluation'])


def in_any_case(registry: MMRegistry, name: str) -> str:
    """The name of the matching entry in a registry; unchanged if none matches."""
    with registry.switch_scope_and_registry(None) as own:
        if own.get(name) is not None:
            return name
    scopes = registered(registry.name, name.rpartition('.')[0] or 'mmengine')
    found = find_name(name.rpartition('.')[2], scopes)
    return f'{scopes[found]}.{found}' if found else name


def registered(kind: str, scope: str) -> dict[str, str]:
    """Names in all registries of a kind such as ``'hook'``, and whose they are.

    Where several scopes have a name it is that of ``scope``, else mmengine's.
    """
    scopes: dict[str, str] = {}
    for module in ('mmkd', 'mmseg', 'mmdet', 'mmengine', scope):
        try:
            found = vars(import_module(f'{module}.registry')).values()
        except ImportError:
            continue
        for registry in found:
            same = str(getattr(registry, 'name', '')).replace('_', ' ') == kind.replace('_', ' ')
            if same and isinstance(registry, MMRegistry):
                registry.import_from_location()
                entries = [*registry.module_dict, *getattr(registry, 'postponed', ())]
                scopes |= dict.fromkeys(entries, registry.scope)
    return scopes
