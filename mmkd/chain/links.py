"""The stages of a chain with their configs and products: what each of them takes from others."""

from __future__ import annotations

import copy
import os.path as osp
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmengine.config import Config

from mmkd.chain.product import Product, digest
from mmkd.chain.resolving import (
    named_configs,
    network_of,
    set_file,
    set_student,
    set_teacher,
    settings_of,
    teacher_entry,
    teacher_places,
)
from mmkd.chain.stage import Reference, Stage, teacher_role
from mmkd.config import load_config


@dataclass
class Links:
    """Attributes:
    stages (dict[str, Stage]): in their order.
    work_dir (str): with one folder for each.
    configs (dict[str, Config]): of stages that train, before they take anything.
    products (dict[str, Product]): of finished stages.
    amp (bool): mixed precision in all that train.
    """

    stages: Mapping[str, Stage]
    work_dir: str
    configs: dict[str, Config] = field(default_factory=dict)
    products: dict[str, Product] = field(default_factory=dict)
    amp: bool = False

    def folder(self, name: str) -> str:
        """Where a stage works."""
        return osp.join(self.work_dir, name)

    def waits(self, name: str) -> bool:
        """Whether a network that the stage needs is still to be made."""
        stage = self.stages[name]
        sources = [*stage.teacher.values(), *([stage.student] if stage.student else [])]
        makers = [self.maker_behind(source.stage) for source in sources]
        return any(maker not in self.products for maker in makers if maker)

    def maker_behind(self, name: str) -> str | None:
        """The maker that a stage's network is from, directly or through the stages between."""
        stage = self.stages[name]
        if stage.make:
            return name
        return self.maker_behind(stage.student.stage) if stage.student else None

    def resolved(self, name: str, files: Mapping[str, str]) -> Config:
        """The config of a stage with what it takes from others.

        Args:
            files (dict[str, str]): paths by role; without one a teacher is a random network.
        """
        stage, config = self.stages[name], self._own(name)
        for key, reference in stage.teacher.items():
            entry, file = teacher_entry(config, stage, key), files.get(teacher_role(key))
            set_teacher(entry, self._network(reference), file, self.folder(reference.stage))
        for key in stage.files:
            set_file(config, stage, key, files.get(f'files.{key}'))
        start = {k: files[k] for k in ('student', 'objectives') if k in files}
        if start:
            hooks = [*(config.get('custom_hooks') or []), dict(type='mmkd.StartHook', **start)]
            config.custom_hooks = hooks
        return config

    def awaits(self, name: str, config: Config) -> dict[str, str]:
        """Where the teachers of a stage get their weights, by name, ``''`` for the only one.

        Args:
            config (Config): of the stage, as :meth:`resolved` gives it without files.
        """
        found = {
            key: str(entry.get('checkpoint') or entry.get('folder'))
            for key, entry in teacher_places(config.model.get('teacher'))
        }
        for key, reference in self.stages[name].teacher.items():
            place = key if key in found else next(iter(found))
            found[place] = f'stage {reference}'
        return found

    def _own(self, name: str) -> Config:
        """A copy of a stage's config, with a maker's student where the weights are from one."""
        stage, config = self.stages[name], copy.deepcopy(self.configs[name])
        maker = self.maker_behind(stage.student.stage) if stage.student else None
        if maker:
            set_student(config, load_config(self.products[maker].config).model)
        return config

    def _network(self, reference: Reference) -> Any:
        """What a teacher takes as its config."""
        stage = self.stages[reference.stage]
        if stage.make:
            return self.products[stage.name].config
        return network_of(self._own(stage.name), stage.config, reference.part)

    def identity(self, name: str) -> tuple[dict[str, Any], dict[str, str]]:
        """What decides the result of a stage: settings, and digests of the files by role."""
        stage = self.stages[name]
        settings = settings_of(dict(make=stage.make) if stage.make else self._own(name))
        if stage.make and (configs := named_configs(stage.maker({}))):
            settings['configs'] = configs
        settings['references'] = {role: str(one) for role, one in stage.references().items()}
        networks = [self._network(one) for one in stage.teacher.values()] if stage.config else []
        settings['teachers'] = settings_of(dict(networks=networks))
        if self.amp and not stage.make:
            settings['amp'] = True
        inputs = {role: digest(path) for role, path in self.files(name).items()}
        return settings, inputs

    def files(self, name: str) -> dict[str, str]:
        """Paths of everything that a stage takes, by role."""
        return {
            role: self.products[reference.stage].file(reference)
            for role, reference in self.stages[name].references().items()
        }
