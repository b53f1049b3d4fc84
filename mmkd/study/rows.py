"""The rows of a study's table, and the runs behind each of them."""

from __future__ import annotations

import itertools
import os.path as osp
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mmengine.config import Config

from mmkd.chain.resolving import flat, read_config, settings_of, teacher_entry, teacher_places
from mmkd.chain.stage import Stage
from mmkd.config import type_name

TEACHER, PLAIN, DISTILLED = 'teacher', 'plain', 'distilled'


@dataclass(frozen=True)
class Row:
    """One row of the table: a config with options, trained with every seed.

    Attributes:
        name (str): in the table.
        pair (str): of the pair it belongs to, ``''`` for the only one.
        kind (str): ``'teacher'``, ``'plain'`` or ``'distilled'``.
        config (str): path.
        options (dict): as ``--cfg-options``, without the seed.
        learns_from (str): the run of the teacher that it takes, ``''`` where the config names one.
        place (str): where that teacher stands in the config, as a dotted key.
        network (str): config of that teacher, ``''`` where the row's own config has it.
        takes (str): the option that gets that run; ``'folder'`` of teachers that read several.
        refused (str): why it is not trained: ``'refused: …'``, ``'left out …'``.
        notes (tuple[str, ...]): what the reader of the table has to know.
    """

    name: str
    pair: str
    kind: str
    config: str
    options: Mapping[str, Any] = field(default_factory=dict)
    learns_from: str = ''
    place: str = 'model.teacher'
    network: str = ''
    takes: str = 'checkpoint'
    refused: str = ''
    notes: tuple[str, ...] = ()

    @property
    def slug(self) -> str:
        """The name as that of a folder."""
        parts = [self.pair, self.name]
        return '_'.join(filter(None, (re.sub(r'[^\w-]+', '_', p).strip('_') for p in parts)))

    def run(self, seed: int) -> str:
        """Name of the run with a seed, which is that of its folder; a teacher has one run."""
        return self.slug if self.kind == TEACHER else f'{self.slug}_s{seed}'

    def seeds(self, seeds: Sequence[int]) -> Sequence[int]:
        """Those of the study's seeds that it is trained with."""
        return seeds[:1] if self.kind == TEACHER else seeds

    def stage(self, seed: int) -> dict[str, Any]:
        """The stage of a chain that is this run."""
        options = {**self.options, 'randomness.seed': seed}
        stage: dict[str, Any] = dict(config=self.config, options=options)
        return stage | dict(teacher=self.learns_from) if self.learns_from else stage

    def read(self, seed: int) -> Config:
        """The config of a run, as the chain reads it, but for the teacher of another stage.

        Raises:
            ValueError, FileNotFoundError: what a chain refuses.
        """
        return read_config(Stage.read(self.run(seed), self.stage(seed)), {}, seed)

    def command(self, seed: int, work_dir: str, flags: Sequence[str] = ()) -> str:
        """The command that trains one run without the study.

        Args:
            work_dir (str): of the study, where the teacher is.
            flags (Sequence[str]): of the study and of all its runs, such as ``--amp``.
        """
        folder = osp.join(work_dir, self.run(seed))
        options = {'randomness.seed': seed, **self.options}
        if self.learns_from:
            options[f'{self.place}.{self.takes}'] = osp.join(work_dir, self.learns_from)
            if self.network:
                options[f'{self.place}.config'] = self.network
        words = [f'{key}={_word(value)}' for key, value in flat(options).items()]
        paths = f'{_word(self.config)} --work-dir {_word(folder)}'
        return ' '.join(['mmkd train', paths, *flags, '--cfg-options', *words])


def _word(value: Any) -> str:
    text = value if isinstance(value, str) else str(value).replace(' ', '')
    return f'"{text}"' if re.search(r'[\s"\'(){}\[\]*]', text) else text


def teacher_key(config: Config) -> str:
    """Where the only teacher stands in a config, as a dotted key."""
    place = next(iter(dict(teacher_places(config.model.get('teacher')))), '')
    return f'model.teacher.{place}'.rstrip('.')


def name_of(config: Config) -> str:
    """The objectives of a distilled config: ``'KD + AT'``."""
    objectives = config.model.get('objectives') or {}
    return ' + '.join(type_name(entry) for entry in objectives.values()) or 'none'


def with_grid(row: Row, grid: Mapping[str, Sequence[Any]], config: Config) -> list[Row]:
    """A row for each combination of the values that the config has a place for.

    A key of an objective belongs to the rows that have this objective, any other key to all rows.
    ``None`` leaves the name of the row as it is.
    """
    objectives = config.model.get('objectives') or {}
    known = [key for key in grid if _objective_in(key) in (None, *objectives)]
    rows = []
    for values in itertools.product(*(grid[key] for key in known)):
        chosen = dict(zip(known, values, strict=True))
        shown = [f'{k.rpartition(".")[2]}={v}' for k, v in chosen.items() if v is not None]
        name = ', '.join([row.name, *shown])
        rows.append(replace(row, name=name, options={**row.options, **chosen}))
    return rows


def check_grid(grid: Mapping[str, Sequence[Any]], configs: Sequence[Config]) -> None:
    """Refuse a key of an objective that no method has; raises ValueError."""
    objectives = sorted({name for c in configs for name in (c.model.get('objectives') or {})})
    for key in grid:
        if _objective_in(key) not in (None, *objectives):
            raise ValueError(
                f'grid: {key} is of an objective that no method of the study has. They have '
                f'{", ".join(objectives) or "none"}.'
            )


def _objective_in(key: str) -> str | None:
    match = re.match(r'model\.objectives\.([^.]+)', key)
    return match[1] if match else None


def plain_of(row: Row, config: Config) -> Row:
    """The plain student of a distilled one: the same command with every weight at 0."""
    options = dict(row.options)
    for name in config.model.get('objectives') or {}:
        options = {k: v for k, v in options.items() if k != f'model.objectives.{name}.weight'}
        options[f'model.objectives.{name}.weight'] = 0
    if config.model.get('balance') is not None:
        options['model.balance'] = None
    if config.model.get('task_weight') is not None:
        options['model.task_weight'] = 1
    return replace(row, name='plain', kind=PLAIN, options=options, notes=())


def differences(one: Config, other: Config) -> list[str]:
    """Dotted keys of data, schedule and student in which two runs differ."""
    found = []
    for config in (one, other):
        settings = settings_of(config)
        model = settings.pop('model', {})
        for key in ('custom_imports', 'custom_hooks', 'randomness'):
            settings.pop(key, None)
        found.append(flat(settings | dict(student=model.get('student', model))))
    keys = found[0].keys() | found[1].keys()
    return sorted(key for key in keys if found[0].get(key) != found[1].get(key))


def check_teacher(row: Row, config: Config) -> None:
    """Refuse several teachers where the study names one; raises ValueError."""
    teacher_entry(config, Stage.read('x', dict(config=row.config, teacher='y')), '')
