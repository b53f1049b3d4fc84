"""Finished runs that differ in one number, such as a weight: scores, mean and spread."""

from __future__ import annotations

import copy
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process

from mmkd.analysis.comparison import Entry, score_entry
from mmkd.chain.resolving import settings_of
from mmkd.checkpoint.newest import newest_checkpoint
from mmkd.config import distils, load_config
from mmkd.evaluation.direction import lower_is_better
from mmkd.students import deployed

#: metrics by which runs are compared, the first that a run has
METRICS = ('bbox_mAP', 'segm_mAP', 'mAP', 'mIoU', 'top1')
DENSITIES = ('few', 'some', 'many')


def factor_of(ratio: str) -> float:
    """``b / a`` of a ratio ``'a:b'`` of task and distillation."""
    first, _, second = ratio.partition(':')
    try:
        factor = float(second) / float(first)
    except (ValueError, ZeroDivisionError):
        factor = math.nan
    if not factor > 0 or math.isinf(factor):
        raise ValueError(f"A ratio is written as 'a:b' with numbers above 0, found {ratio!r}.")
    return factor


def spread(scores: Sequence[float]) -> dict[str, float]:
    """Mean, sample standard deviation (n - 1) and range; NaN where one score has no spread."""
    several = len(scores) > 1
    return dict(
        mean=statistics.fmean(scores),
        std=statistics.stdev(scores) if several else math.nan,
        range=max(scores) - min(scores) if several else math.nan,
    )


def terciles(counts: Sequence[int]) -> list[list[int]]:
    """Positions of the images with few, some and many objects.

    The bounds are ``sorted[ceil(n / 3) - 1]`` and ``sorted[ceil(2 n / 3) - 1]``; an image with as
    many objects as a bound is below it.
    """
    ordered, n = sorted(counts), len(counts)
    low, high = (ordered[-(-k * n // 3) - 1] for k in (1, 2))
    groups: list[list[int]] = [[], [], []]
    for position, count in enumerate(counts):
        groups[(count > low) + (count > high)].append(position)
    return groups


@dataclass
class Run:
    """A finished run.

    Attributes:
        folder (str): its work dir.
        config (Config): with which it was trained.
        checkpoint (str): its last.
        value (Any): of the number that differs, None where the config does not have it.
        seed (Any): of the run.
        score (float): the metric of its last validation.
    """

    folder: str
    config: Config
    checkpoint: str
    value: Any
    seed: Any
    score: float


@dataclass
class Sweep:
    """Runs by value, and those of the baseline.

    Attributes:
        key, metric (str): what differs, and what is compared.
        runs, baseline (list[Run]): finished ones.
        left_out (list[str]): sentences on folders that were not counted.
        densities (dict[str, list[float]]): scores on few, some and many objects, by folder.
    """

    key: str
    metric: str
    runs: list[Run]
    baseline: list[Run] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    densities: dict[str, list[float]] = field(default_factory=dict)

    def by_value(self) -> dict[Any, list[Run]]:
        found = defaultdict(list)
        for run in sorted(self.runs, key=lambda run: (float(run.value), str(run.seed))):
            found[run.value].append(run)
        return dict(found)

    def lines(self) -> list[str]:
        """A Markdown table, then what follows from it."""
        rows = [
            (f'{value:g}', runs, statistics.fmean(run.score for run in runs))
            for value, runs in self.by_value().items()
        ]
        if self.baseline:
            mean = statistics.fmean(run.score for run in self.baseline)
            rows.append(('baseline', self.baseline, mean))
        dense = [f' | {name} objects' for name in DENSITIES] if self.densities else []
        found = [
            f'| {self.key} | {self.metric}, by seed | mean{"".join(dense)} |',
            '|---' * (3 + len(dense)) + '|',
        ]
        for name, runs, mean in rows:
            cells = [f'{name}', ' / '.join(f'{run.score:.4g}' for run in runs), f'{mean:.4g}']
            if dense:
                by_group = zip(*(self.densities[run.folder] for run in runs), strict=True)
                cells += [f'{statistics.fmean(group):.4g}' for group in by_group]
            found.append(f'| {" | ".join(cells)} |')
        return [*found, '', *self._summary(), *self.left_out]

    def _summary(self) -> list[str]:
        groups = self.by_value()
        means = [statistics.fmean(run.score for run in runs) for runs in groups.values()]
        whole = spread(means)
        lines = [f'mean over {len(means)} values of {self.key}: {whole["mean"]:.4g}']
        if len(means) > 1:
            lines[0] += f', standard deviation {whole["std"]:.4g}, range {whole["range"]:.4g}'
        else:
            lines.append('one value has no spread: train with at least two')
        if max(map(len, groups.values())) < 2:
            lines.append('one seed a value: differences may be those of seeds')
        if self.baseline:
            gain = whole['mean'] - statistics.fmean(run.score for run in self.baseline)
            gain = -gain if lower_is_better(self.metric) else gain
            lines.append(f'gain of the mean on the baseline: {gain:+.4g}')
            if {run.seed for run in self.baseline} != {run.seed for run in self.runs}:
                lines.append('the baseline has other seeds than the runs')
        return lines


def read_sweep(
    folders: Sequence[str], key: str, baseline: Sequence[str] = (), metric: str | None = None
) -> Sweep:
    """The finished runs in some folders.

    Args:
        folders (Sequence[str]): work dirs of runs that differ in ``key`` and the seed alone.
        key (str): dotted, such as ``'model.objectives.hdkd.weight'``.
        baseline (Sequence[str]): work dirs of runs without distillation.
        metric (str | None): name in the log; ``None``: AP, mIoU or top-1.

    Raises:
        ValueError: no finished run; runs that differ in anything else; a value that is no number;
            an unknown metric.
        FileNotFoundError: a folder without a config.
    """
    left_out: list[str] = []
    runs, plain = (
        [run for folder in part if (run := _read(folder, key, metric, left_out))]
        for part in (folders, baseline)
    )
    if not runs:
        raise ValueError(' '.join(['No finished run to compare.', *left_out]))
    for run in runs:
        if not isinstance(run.value, (int, float)):
            raise ValueError(
                f'{run.folder} was trained with {key}={run.value!r}, which is no number. Name the '
                'key that differs: --key model.objectives.NAME.weight.'
            )
    for run in [*runs[1:], *plain]:
        if different := _difference(runs[0], run, key):
            raise ValueError(
                f'{runs[0].folder} and {run.folder} differ in {", ".join(different)}, not in {key} '
                'and the seed alone, so their scores say nothing about it.'
            )
    return Sweep(key, _metric(runs[0].folder, metric), runs, plain, left_out)


def _read(folder: str, key: str, metric: str | None, left_out: list[str]) -> Run | None:
    """A run; None, with a sentence in ``left_out``, if it is not finished."""
    config = load_config(_config_in(folder))
    checkpoint, _ = newest_checkpoint(folder)
    scores = _last_scores(folder)
    length = config.get('train_cfg') or {}
    wanted = length.get('max_epochs') or length.get('max_iters')
    done = Path(checkpoint).stem.rpartition('_')[2] if checkpoint else '0'
    if not checkpoint or not scores or str(wanted) != done:
        left_out.append(f'{folder} is not finished ({done} of {wanted}), and is left out.')
        return None
    value = _value(config, key)
    seed = (config.get('randomness') or {}).get('seed')
    return Run(folder, config, checkpoint, value, seed, scores[_metric(folder, metric)])


def _config_in(folder: str) -> str:
    found = sorted(Path(folder).glob('*.py'), key=lambda path: path.stat().st_mtime)
    if not found:
        raise FileNotFoundError(f'{folder} is no work dir of a run: there is no config in it.')
    return str(found[-1])


def _value(config: Config, key: str) -> Any:
    place: Any = config._cfg_dict
    for part in key.split('.'):
        place = place.get(part) if isinstance(place, Mapping) else None
    return place.get('value') if isinstance(place, Mapping) else place


def _last_scores(folder: str) -> dict[str, float]:
    """Metrics of the last validation, from the newest log that has any."""
    for path in sorted(Path(folder).glob('*/vis_data/scalars.json'), reverse=True):
        for line in reversed(path.read_text().splitlines()):
            entry = json.loads(line)
            if 'lr' not in entry and 'loss' not in entry:
                return {k: v for k, v in entry.items() if isinstance(v, (int, float))}
    return {}


def _metric(folder: str, metric: str | None) -> str:
    scores = _last_scores(folder)
    if metric in scores:
        return str(metric)
    ends = {key.rpartition('/')[2]: key for key in scores}
    known = [ends[name] for name in METRICS if name in ends]
    if metric is not None or not known:
        raise ValueError(
            f'{folder} has no metric {metric or "that is known"}. It has: '
            f'{", ".join(scores) or "none"}. Name one by --metric.'
        )
    return known[0]


def _difference(one: Run, other: Run, key: str) -> list[str]:
    """Dotted keys in which two configs differ, but for the key and the seed; of a plain run, of
    data and schedule alone."""
    configs = [copy.deepcopy(run.config._cfg_dict) for run in (one, other)]
    plain = not distils(other.config.model)
    for config in configs:
        config.pop('randomness', None)
        if plain:
            config.pop('model', None)
        place: Any = config
        *path, last = key.split('.')
        for part in path:
            place = place.get(part) if isinstance(place, Mapping) else None
        if isinstance(place, Mapping) and isinstance(place.get(last), Mapping):
            place[last].pop('value', None)
        elif isinstance(place, dict):
            place.pop(last, None)
    flat = [_flat(settings_of(config)) for config in configs]
    return sorted(k for k in flat[0].keys() | flat[1].keys() if flat[0].get(k) != flat[1].get(k))


def _flat(value: Any, prefix: str = '') -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, item in value.items():
        found |= _flat(item, f'{prefix}.{key}'.lstrip('.'))
    return found


def add_densities(sweep: Sweep, work_dir: str) -> None:
    """Score every run again on the images with few, some and many objects.

    Raises:
        ValueError: validation images without boxes.
    """
    config = sweep.runs[0].config
    groups = terciles(object_counts(config))
    for run in [*sweep.runs, *sweep.baseline]:
        entry = Entry(deployed(run.config.model), run.checkpoint)
        scores = []
        for name, chosen in zip(DENSITIES, groups, strict=True):
            folder = str(Path(work_dir) / Path(run.folder).name)
            found = score_entry(f'{Path(run.folder).name}_{name}', entry, config, folder, chosen)
            scores.append(found.get(sweep.metric.rpartition('/')[2], math.nan))
        if is_main_process():
            sweep.densities[run.folder] = scores


def object_counts(config: Config) -> list[int]:
    """Boxes of each image of the validation set, crowds and ignored ones left out."""
    from mmengine.registry import DATASETS, DefaultScope

    with DefaultScope.overwrite_default_scope(config.get('default_scope') or 'mmdet'):
        dataset: Any = DATASETS.build({**config.val_dataloader.dataset, 'pipeline': []})
    entries = [dataset.get_data_info(i).get('instances') for i in range(len(dataset))]
    if None in entries or not any(entries):
        raise ValueError('--by-density counts objects, but the validation images have no boxes.')
    return [sum(not one.get('ignore_flag') for one in entry) for entry in entries]
