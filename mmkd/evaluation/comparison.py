"""One table of scores, class by class, for a teacher and any number of students."""

from __future__ import annotations

import contextlib
import copy
import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from mmkd.config import load_config
from mmkd.engine.launch import test

TEACHER = 'teacher'


@dataclass
class Comparison:
    """Scores of several models on one test set.

    Attributes:
        columns (list[str]): names of the models, the teacher first if there is one.
        rows (dict[str, list[float]]): a score of each model by class or metric; NaN where a model
            has none.
    """

    columns: list[str] = field(default_factory=list)
    rows: dict[str, list[float]] = field(default_factory=dict)

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
        students = [i for i, name in enumerate(self.columns) if name != TEACHER]
        base, others = students[0], students[1:]
        gains = [f'{self.columns[i]} - {self.columns[base]}' for i in others]
        cells = [['', *self.columns, *gains]]
        for key, values in self.rows.items():
            digits = 2 if any(abs(v) > 1 for v in values) else 3
            shown = [_number(v, f'.{digits}f') for v in values]
            shown += [_number(values[i] - values[base], f'+.{digits}f') for i in others]
            cells.append([key, *shown])
        return cells

    def text(self, suffix: str = '.md') -> str:
        """As markdown (``'.md'``), ``'.csv'`` or ``'.json'``.

        Raises:
            ValueError: another suffix.
        """
        if suffix == '.json':
            known = {
                key: [None if math.isnan(v) else v for v in values]
                for key, values in self.rows.items()
            }
            return json.dumps(dict(columns=self.columns, rows=known), indent=1) + '\n'
        cells = self.table()
        if suffix == '.csv':
            out = io.StringIO()
            csv.writer(out, lineterminator='\n').writerows(cells)
            return out.getvalue()
        if suffix != '.md':
            raise ValueError(f'a comparison is written as .md, .csv or .json, not as {suffix!r}.')
        lines = ['| ' + ' | '.join(row) + ' |' for row in cells]
        lines.insert(1, '|---' * len(cells[0]) + '|')
        return '\n'.join(lines) + '\n'


def compare(config: Config, students: Mapping[str, str], work_dir: str) -> Comparison:
    """Score the config's teacher and some student checkpoints with its own test set and metric.

    Args:
        config (Config): of a distilled run, or a plain one, which has no teacher.
        students (dict[str, str]): checkpoints by name; differences are to the first.
        work_dir (str): for the logs of the tests.

    Raises:
        ValueError: no student; a student called 'teacher'; a checkpoint that does not fit.
        FileNotFoundError: a checkpoint or dataset path that does not exist.
    """
    if not students:
        raise ValueError('compare needs a student: --student NAME=CHECKPOINT.')
    if TEACHER in students:
        raise ValueError("'teacher' is the config's own; call the student otherwise.")
    missing = [path for path in students.values() if '://' not in path and not Path(path).is_file()]
    if missing:
        raise FileNotFoundError(f'there is no checkpoint {", ".join(missing)}.')
    entries = [(name, config.model, path) for name, path in students.items()]
    teacher = config.model.get('teacher') if 'Distiller' in str(config.model.get('type')) else None
    if teacher is not None and 'config' in teacher:
        entries.insert(0, (TEACHER, _model_of(teacher), teacher['checkpoint']))
    result = Comparison()
    for name, model, checkpoint in entries:
        one = copy.deepcopy(config)
        one.model = copy.deepcopy(model)
        one.experiment_name = f'compare_{name}'
        with classes_of_segmentors() as seen:
            scores = test(one, checkpoint, work_dir=str(Path(work_dir) / name))
        result.add(name, {**seen, **{_short(k): v for k, v in scores.items()}})
    return result


def _model_of(teacher: Mapping[str, Any]) -> Any:
    """The model mapping of a teacher's config."""
    config = teacher['config']
    config = load_config(config) if isinstance(config, str) else Config(copy.deepcopy(config))
    config.merge_from_dict(dict(teacher.get('cfg_options') or {}))
    model = config.get('model', config._cfg_dict)
    return model['student'] if 'Distiller' in str(model.get('type')) else model


@contextlib.contextmanager
def classes_of_segmentors() -> Iterator[dict[str, float]]:
    """Collect the IoU of each class, which mmseg's metric prints but does not return."""
    found: dict[str, float] = {}
    try:
        from mmseg.evaluation.metrics import IoUMetric
    except ImportError:  # detectors and classifiers alone
        yield found
        return
    original = IoUMetric.compute_metrics

    def compute_metrics(self: Any, results: list) -> dict[str, float]:
        areas = self.total_area_to_metrics

        def total(*args: Any, **kwargs: Any) -> Any:
            values = areas(*args, **kwargs)
            names = self.dataset_meta['classes']
            for title, each in values.items():
                if title == 'IoU' and np.size(each) == len(names):
                    found.update(zip(names, (100 * np.asarray(each)).tolist(), strict=True))
            return values

        self.total_area_to_metrics = total
        try:
            return original(self, results)
        finally:
            del self.total_area_to_metrics

    IoUMetric.compute_metrics = compute_metrics
    try:
        yield found
    finally:
        IoUMetric.compute_metrics = original


def _short(key: str) -> str:
    """A metric without the dataset's prefix, a class's precision under its name."""
    return key.rpartition('/')[2].removesuffix('_precision')


def _number(value: float, form: str) -> str:
    return 'n/a' if math.isnan(value) else format(value, form)
