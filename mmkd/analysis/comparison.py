"""One table of scores, class by class, for teachers and any number of students."""

from __future__ import annotations

import copy
import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from mmkd.analysis.per_class import report_classes
from mmkd.config import distils, load_config
from mmkd.engine.launch import check_data, tester
from mmkd.teacher import build_model, load_strictly

FORMS = ('.md', '.csv', '.json')


@dataclass
class Comparison:
    """Scores of several models on one test set.

    Attributes:
        columns (list[str]): names of the models, teachers first.
        rows (dict[str, list[float]]): a score of each model by class or metric; NaN where a model
            has none.
        teachers (int): how many of the columns are teachers'.
    """

    columns: list[str] = field(default_factory=list)
    rows: dict[str, list[float]] = field(default_factory=dict)
    teachers: int = 0

    def add(self, name: str, scores: Mapping[str, float]) -> None:
        """Append a column."""
        for values in self.rows.values():
            values.append(math.nan)
        for key, score in scores.items():
            values = self.rows.setdefault(key, [math.nan] * (len(self.columns) + 1))
            values[-1] = float(score)
        self.columns.append(name)

    def table(self) -> list[list[str]]:
        """Cells with a header; students after the first are also shown as differences to it."""
        base, *others = range(self.teachers, len(self.columns))
        gains = [f'{self.columns[i]} - {self.columns[base]}' for i in others]
        cells = [['', *self.columns, *gains]]
        for key, values in self.rows.items():
            digits = 2 if any(abs(v) > 1 for v in values) else 3
            shown = [_number(v, f'.{digits}f') for v in values]
            shown += [_number(values[i] - values[base], f'+.{digits}f') for i in others]
            cells.append([key, *shown])
        return cells

    def text(self, form: str = '.md') -> str:
        """As markdown (``'.md'``), ``'.csv'`` or ``'.json'``."""
        if form == '.json':
            known = {
                key: [None if math.isnan(v) else v for v in values]
                for key, values in self.rows.items()
            }
            return json.dumps(dict(columns=self.columns, rows=known), indent=1) + '\n'
        cells = self.table()
        if form == '.csv':
            out = io.StringIO()
            csv.writer(out, lineterminator='\n').writerows(cells)
            return out.getvalue()
        lines = ['| ' + ' | '.join(row) + ' |' for row in cells]
        lines.insert(1, '|---' * len(cells[0]) + '|')
        return '\n'.join(lines) + '\n'


def form_of(path: str) -> str:
    """The ending of a file's name; ValueError if it is none of ``FORMS``."""
    form = Path(path).suffix
    if form not in FORMS:
        raise ValueError(f'a comparison is written as .md, .csv or .json, not as {path!r}.')
    return form


def parse_students(entries: Sequence[str]) -> dict[str, str]:
    """``['plain=a.pth', …]`` -> checkpoints by name.

    Raises:
        ValueError: an entry without a name or a path; a name given twice.
    """
    result: dict[str, str] = {}
    for entry in entries:
        name, _, path = entry.partition('=')
        if not name or not path:
            raise ValueError(f'--student takes NAME=CHECKPOINT, found {entry!r}.')
        if name in result:
            raise ValueError(f'there are two students {name!r}; a name is the head of a column.')
        result[name] = path
    return result


class Entry(NamedTuple):
    """A model to score: its mapping, its weights, and keys of them that may differ."""

    model: Any
    checkpoint: str
    ignore_keys: Sequence[str] = ()


def compare(config: Config, students: Mapping[str, str], work_dir: str) -> Comparison:
    """Score the config's teachers and some student checkpoints on its own test set.

    Args:
        config (Config): of a distilled run, or a plain one, which has no teacher.
        students (dict[str, str]): checkpoints by name; differences are to the first.
        work_dir (str): for the logs of the tests.

    Raises:
        ValueError: no student; a student called like a teacher; a teacher without weights; a
            checkpoint that does not fit. All before anything is scored.
        FileNotFoundError: a checkpoint or dataset path that does not exist.
    """
    teachers, model = dict(_teachers(config.model)), config.model
    if not students:
        raise ValueError('compare needs a student: --student NAME=CHECKPOINT.')
    if taken := sorted(set(students) & set(teachers)):
        raise ValueError(f"{taken[0]!r} is the config's own teacher; call the student otherwise.")
    own = model.student if distils(model) else model
    entries = {**teachers, **{name: Entry(own, path) for name, path in students.items()}}
    check_data(config, 'test')
    for name, entry in entries.items():
        _check(name, entry, config)
    result = Comparison(teachers=len(teachers))
    for name, entry in entries.items():
        one = copy.deepcopy(config)
        one.model, one.experiment_name = copy.deepcopy(entry.model), f'compare_{name}'
        runner = tester(one, entry.checkpoint, str(Path(work_dir) / name), entry.ignore_keys)
        metrics = runner.test_loop.evaluator.metrics
        report_classes(metrics)
        prefixes = [f'{metric.prefix}/' for metric in metrics if metric.prefix]
        result.add(name, {_short(key, prefixes): score for key, score in runner.test().items()})
    return result


def _teachers(model: Mapping[str, Any]) -> Iterator[tuple[str, Entry]]:
    """What a Distiller's config says of its teachers."""
    teachers = (model.get('teacher') if distils(model) else None) or {}
    for name, entry in (dict(teacher=teachers) if 'config' in teachers else teachers).items():
        if entry.get('checkpoint') in (None, 'random'):
            raise ValueError(
                f'teacher {name!r} has no weights to score: checkpoint={entry.get("checkpoint")!r}.'
            )
        config = entry['config']
        config = load_config(config) if isinstance(config, str) else Config(copy.deepcopy(config))
        config.merge_from_dict(dict(entry.get('cfg_options') or {}))
        own = config.get('model', config._cfg_dict)
        own = own['student'] if distils(own) else own
        yield name, Entry(own, entry['checkpoint'], tuple(entry.get('ignore_keys') or ()))


def _check(name: str, entry: Entry, config: Config) -> None:
    """Load the weights once, so that nobody waits for a score before the next model is refused."""
    if '://' not in entry.checkpoint and not Path(entry.checkpoint).is_file():
        raise FileNotFoundError(f'{name}: there is no checkpoint {entry.checkpoint}.')
    own = dict(model=entry.model, default_scope=config.get('default_scope'))
    load_strictly(build_model(Config(own)), entry.checkpoint, entry.ignore_keys, who=name)


def _short(key: str, prefixes: Sequence[str]) -> str:
    """A score without its metric's prefix, a class's precision under the name of the class."""
    for prefix in prefixes:
        key = key.removeprefix(prefix)
    return key.removesuffix('_precision')


def _number(value: float, form: str) -> str:
    return 'n/a' if math.isnan(value) else format(value, form)
