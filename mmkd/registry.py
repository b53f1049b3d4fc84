"""Child registries of mmengine's, scope ``mmkd``: write ``type='mmkd.FGFI'`` in any config."""

from __future__ import annotations

from typing import Any

from mmengine import registry as root
from mmengine.registry import Registry as MMRegistry

from mmkd.names import find_name


class Registry(MMRegistry):
    """mmengine's, which also finds what is written with other case, if only one thing is meant."""

    def get(self, key: str) -> Any:
        """The class or function of this name, None where there is none."""
        found = super().get(key)
        scope, name = self.split_scope_key(key)
        if found is None and scope in (None, self.scope):
            found = self.module_dict.get(find_name(name, self.module_dict) or name)
        return found


_ENGINE = ['mmkd.engine.launch']  # imports every hook, loop and Runner

MODELS = Registry(
    'model',
    parent=root.MODELS,
    scope='mmkd',
    locations=['mmkd.distiller', 'mmkd.methods', 'mmkd.models'],
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
METRICS = Registry('metric', parent=root.METRICS, scope='mmkd', locations=['mmkd.evaluation'])
