"""Scores and costs of teachers and any number of students on one test set."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.runner import Runner
from torch import nn

from mmkd.analysis.per_class import is_class, report_classes
from mmkd.analysis.prediction_cost import PredictionCosts
from mmkd.analysis.score_table import ScoreTable
from mmkd.borrowed import unwrapped
from mmkd.checkpoint import weights_of
from mmkd.config import distils, load_config
from mmkd.engine.console.screen import current_screen
from mmkd.engine.launch import check_data, check_test_set, tester
from mmkd.students import deployed
from mmkd.teacher import build_model, load_strictly
from mmkd.teachers import frozen_networks, is_teacher

Visit = Callable[[str, nn.Module], None]


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
            raise ValueError(f'there are two students {name!r}; names are headings of columns.')
        result[name] = path
    return result


class Entry(NamedTuple):
    """A model to score: its mapping, its weights, and keys of them that may differ."""

    model: Any
    checkpoint: str
    ignore_keys: Sequence[str] = ()

    def built(self, name: str, scope: str | None) -> nn.Module:
        """The model with its weights; raises what does not fit, of ``name``."""
        model = build_model(Config(dict(model=self.model, default_scope=scope)))
        load_strictly(model, self.checkpoint, self.ignore_keys, who=name)
        return model


def compare(
    config: Config,
    students: Mapping[str, str],
    work_dir: str,
    visit: Visit = lambda name, model: None,
) -> ScoreTable:
    """Score the config's teachers and some student checkpoints on its own test set.

    Args:
        config (Config): of a distilled run, or a plain one, which has no teacher.
        students (dict[str, str]): checkpoints by name; differences are to the first.
        work_dir (str): for the logs of the tests.
        visit (callable): called with the name and the model after each test, in the main process.

    Raises:
        ValueError: no student; a student called like a teacher; a teacher without weights; a
            checkpoint that does not fit. All before anything is scored.
        FileNotFoundError: a checkpoint or dataset path that does not exist.
    """
    entries, teachers = _entries(config, students)
    costs, scored = PredictionCosts(), {}
    for number, (name, entry) in enumerate(entries.items(), 1):
        progress = f'scoring {name} ({number} of {len(entries)})'
        current_screen().show(number - 1, len(entries), progress)
        runner = _tester(name, entry, config, work_dir)
        scored[name] = _scores(runner)
        dataset = runner.test_dataloader.dataset
        if is_main_process():
            model = unwrapped(runner.model)
            costs.add(name, model, dataset)
            visit(name, model)
    measured = costs.measure()
    result = ScoreTable(teachers=teachers, notes=costs.notes())
    classes = dataset.metainfo.get('classes') or ()
    for name, scores in scored.items():
        own = [key for key in scores if is_class(key, classes)]
        result.add(name, scores, measured.get(name), own)
    return result


def _entries(config: Config, students: Mapping[str, str]) -> tuple[dict[str, Entry], int]:
    """What is to be scored, by name, and how many of them are teachers; all weights fit."""
    teachers, model = dict(teachers_in(config.model)), config.model
    if not students:
        raise ValueError('compare needs a student: --student NAME=CHECKPOINT.')
    check_test_set(config, 'compare scores on the test set')
    if taken := sorted(set(students) & set(teachers)):
        raise ValueError(f"{taken[0]!r} is the config's own teacher; rename the student.")
    own = deployed(model)
    entries = {**teachers, **{name: Entry(own, path) for name, path in students.items()}}
    check_data(config, 'test')
    for name, entry in entries.items():
        _check(name, entry, config)
    return entries, len(teachers)


def teachers_in(model: Mapping[str, Any]) -> Iterator[tuple[str, Entry]]:
    """The teachers of a Distiller's config."""
    teachers = (model.get('teacher') if distils(model) else None) or {}
    for name, entry in frozen_networks(teachers).items():
        if (checkpoint := entry.get('checkpoint')) in (None, 'random'):
            raise ValueError(
                f'teacher {name!r} has no weights to score: checkpoint={checkpoint!r}. Name its '
                'file in the config, or by '
                f'--cfg-options {_config_key(teachers, name)}.checkpoint=….'
            )
        config = entry['config']
        config = load_config(config) if isinstance(config, str) else Config(copy.deepcopy(config))
        config.merge_from_dict(dict(entry.get('cfg_options') or {}))
        own = deployed(config.get('model', config._cfg_dict))
        weights = weights_of(entry['checkpoint'], entry['config'])
        yield name, Entry(own, weights, tuple(entry.get('ignore_keys') or ()))


def _config_key(teachers: Mapping[str, Any], name: str) -> str:
    """Where a frozen network of that name stands in the config."""
    first, *members = name.split('.')
    own = 'model.teacher' if is_teacher(teachers) else f'model.teacher.{first}'
    return '.members.'.join([own, *members])


def _check(name: str, entry: Entry, config: Config) -> None:
    """Load the weights once, so that nobody waits for a score before the next model is refused."""
    if '://' not in entry.checkpoint and not Path(entry.checkpoint).exists():
        raise FileNotFoundError(f'{name}: there is no checkpoint {entry.checkpoint}.')
    entry.built(name, config.get('default_scope'))


def score_entry(
    name: str,
    entry: Entry,
    config: Config,
    work_dir: str,
    indices: Sequence[int] | None = None,
) -> dict[str, float]:
    """Every number of a test of the validation set, without its metric's prefix.

    Args:
        indices (Sequence[int] | None): positions of the images that count, None for all.
    """
    one = copy.deepcopy(config)
    for part in ('dataloader', 'evaluator', 'cfg'):
        if one.get(f'val_{part}'):
            one[f'test_{part}'] = copy.deepcopy(one[f'val_{part}'])
    one.test_cfg = dict(type='TestLoop')
    if indices is not None:
        one.test_dataloader.dataset.indices = list(indices)
    runner = _tester(name, entry, one, work_dir)
    dataset: Any = runner.test_dataloader.dataset
    for metric in runner.test_loop.evaluator.metrics:
        if getattr(metric, '_coco_api', None) is not None:  # else it would miss all other images
            metric.img_ids = [dataset.get_data_info(i)['img_id'] for i in range(len(dataset))]
    return _scores(runner)


def _tester(name: str, entry: Entry, config: Config, work_dir: str) -> Runner:
    """A Runner of the config that tests another model, with names and logs of its own."""
    one = copy.deepcopy(config)
    one.model, one.experiment_name = copy.deepcopy(entry.model), f'compare_{name}'
    if one.get('visualizer'):
        one.visualizer.name = one.experiment_name  # mmengine warns of a second one of a name
    return tester(one, entry.checkpoint, str(Path(work_dir) / name), entry.ignore_keys)


def _scores(runner: Runner) -> dict[str, float]:
    """Test, and return every number without its metric's prefix, classes' included."""
    metrics = runner.test_loop.evaluator.metrics
    report_classes(metrics)
    prefixes = [f'{metric.prefix}/' for metric in metrics if metric.prefix]
    found: dict[str, float] = {}
    for key, score in runner.test().items():
        for prefix in prefixes:
            key = key.removeprefix(prefix)
        with contextlib.suppress(TypeError, ValueError):  # metrics may also return text
            found[key] = float(score)
    return found
