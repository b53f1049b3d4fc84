"""What the runs of a study have left in their folders, and the numbers of the table."""

from __future__ import annotations

import math
import os.path as osp
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mmkd.analysis.sweep import METRICS, spread
from mmkd.chain.product import DONE, read_json
from mmkd.evaluation.direction import lower_is_better
from mmkd.study.measure import COSTS, MEASURED, SCORED
from mmkd.study.pairing import PairRows
from mmkd.study.rows import DISTILLED, PLAIN, TEACHER, Row

Numbers = dict[int, float]  # by seed


@dataclass
class Result:
    """One row with what its runs have left; a run that is not finished leaves nothing.

    Attributes:
        row (Row): of the table.
        metrics (dict[int, dict]): of the last validation, by seed.
        curves (dict[int, dict]): metrics by epoch or iteration, by seed.
        unit (str): ``'epoch'`` or ``'iteration'``.
        step, peak, seconds (dict[int, float]): seconds of a step, bytes, seconds of the training.
        problem (str): why runs are missing: refused, or what failed.
    """

    row: Row
    metrics: dict[int, dict[str, float]] = field(default_factory=dict)
    curves: dict[int, dict[str, dict[str, float]]] = field(default_factory=dict)
    unit: str = 'epoch'
    step: Numbers = field(default_factory=dict)
    peak: Numbers = field(default_factory=dict)
    seconds: Numbers = field(default_factory=dict)
    problem: str = ''

    def scores(self, metric: str) -> Numbers:
        return {seed: found[metric] for seed, found in self.metrics.items() if metric in found}


def read_result(row: Row, seeds: Sequence[int], work_dir: str, failed: Mapping[str, str]) -> Result:
    """From the folders of a row's runs.

    Args:
        failed (dict[str, str]): what went wrong, by name of the run.
    """
    found = Result(row, problem=row.refused)
    for seed in [] if row.refused else row.seeds(seeds):
        folder = osp.join(work_dir, row.run(seed))
        if row.run(seed) in failed:
            found.problem = f'failed: {failed[row.run(seed)]}'
            continue
        done = read_json(osp.join(folder, DONE)) or {}
        given = read_json(osp.join(folder, SCORED)) or {}
        scores = (done.get('product') or given).get('scores')
        if scores is None:
            continue
        found.metrics[seed] = _short(scores)
        measured = read_json(osp.join(folder, MEASURED)) or {}
        found.unit = measured.get('unit', found.unit)
        found.curves[seed] = {at: _short(m) for at, m in measured.get('curve', {}).items()}
        for key, value in dict(
            step=measured.get('step'), peak=measured.get('peak'), seconds=done.get('seconds')
        ).items():
            if value is not None:
                getattr(found, key)[seed] = float(value)
    return found


def _short(scores: Mapping[str, float]) -> dict[str, float]:
    """Metrics without the prefix of their evaluator."""
    return {key.rpartition('/')[2]: float(value) for key, value in scores.items()}


def choose_metric(results: Iterable[Result], asked: str | None) -> str:
    """The metric that all rows have: the one asked for, else AP, mIoU or top-1, else the first.

    Raises:
        ValueError: there is none.
    """
    found = {r.row.name: list(next(iter(r.metrics.values()))) for r in results if r.metrics}
    if not found:  # nothing was trained, and the table says why
        return asked or 'score'
    names = [*found.values()]
    common = [name for name in names[0] if all(name in other for other in names)]
    asked = asked and asked.rpartition('/')[2]
    ordered = [name for name in (asked,) if name] or [*(m for m in METRICS if m in common), *common]
    if not ordered or ordered[0] not in common:
        have = '; '.join(f'{row}: {", ".join(keys) or "none"}' for row, keys in found.items())
        raise ValueError(
            f'The rows of the study have no metric {asked or "in common"}. They have: '
            f'{have}. Name one by --metric, or evaluate all alike.'
        )
    return ordered[0]


@dataclass(frozen=True)
class Summary:
    """The numbers of a row; NaN where there are none.

    Scores in ``[0, 1]`` are in percent, so gains are points. Of a metric of which less is better
    gains are reductions: above 0 is better for every metric.

    Attributes:
        scores (dict[int, float]): by seed.
        mean, std (float): of the scores, sample deviation.
        gain, gain_std (float): over the plain run of the same seed.
        share (float): of the gap between the plain student and the teacher that is recovered:
            gain / (teacher - plain), over the same seeds.
        behind (float): gap to the teacher, relative to its score.
        better (float): gain over the plain student, relative to its score.
        step, memory (float): time of a step and peak memory relative to the plain student.
        minutes (float): of one training.
    """

    scores: Numbers
    mean: float
    std: float
    gain: float = math.nan
    gain_std: float = math.nan
    share: float = math.nan
    behind: float = math.nan
    better: float = math.nan
    step: float = math.nan
    memory: float = math.nan
    minutes: float = math.nan


def summarise(
    result: Result,
    metric: str,
    plain: Result | None,
    teacher: Result | None,
    factor: float = 1.0,
    lower: bool = False,
) -> Summary:
    """The numbers of one row.

    Args:
        metric (str): which of the scores.
        plain, teacher (Result | None): rows to compare with.
        factor (float): of all scores, 100 for percent.
        lower (bool): less is better.
    """
    sign = -1 if lower else 1
    own, base, top = (
        {seed: factor * value for seed, value in one.scores(metric).items()} if one else {}
        for one in (result, plain, teacher)
    )
    mean, std = _mean(own.values()), _std(own.values())
    above = _mean(top.values())
    compared = result.row.kind == DISTILLED
    seeds = [seed for seed in own if seed in base] if compared else []
    gains = [sign * (own[seed] - base[seed]) for seed in seeds]
    gain, level = _mean(gains), _mean(base[seed] for seed in seeds)
    return Summary(
        own,
        mean,
        std,
        gain,
        _std(gains),
        _ratio(gain, gap) if (gap := sign * (above - level)) > 0 else math.nan,
        _ratio(sign * (above - mean), above) if result is not teacher else math.nan,
        _ratio(gain, level),
        _relative(result, plain, 'step'),
        _relative(result, plain, 'peak'),
        _mean(result.seconds.values()) / 60,
    )


def _relative(result: Result, plain: Result | None, key: str) -> float:
    if plain is None or result.row.kind == TEACHER:
        return math.nan
    own, base = (statistics.median(getattr(r, key).values() or [math.nan]) for r in (result, plain))
    return _ratio(own, base)


def _ratio(one: float, other: float) -> float:
    return one / other if other else math.nan


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return statistics.fmean(found) if found else math.nan


def _std(values: Iterable[float]) -> float:
    found = list(values)
    return spread(found)['std'] if found else math.nan


@dataclass
class PairResults:
    """A pair's table.

    Attributes:
        rows (PairRows): what was asked for.
        results (list[Result]): teacher, plain, then the methods; those that there are.
        metric (str): by which they are compared.
        factor (float): 100 where all scores are in [0, 1].
        costs (dict): by network (``'teacher'``, ``'student'``) and cost.
        notes (list[str]): on the costs.
        lower (bool): of the metric less is better.
    """

    rows: PairRows
    results: list[Result]
    metric: str
    factor: float
    costs: Mapping[str, Mapping[str, float]]
    notes: Sequence[str] = ()
    lower: bool = False

    @property
    def digits(self) -> int:
        """Decimals with which scores are shown: of errors that are no percentages three."""
        values = [abs(v) for one in self.results for v in one.scores(self.metric).values()]
        return 3 if self.lower and max(values, default=0) < 10 else 1

    def of(self, kind: str) -> Result | None:
        return next((r for r in self.results if r.row.kind == kind), None)

    def summaries(self) -> list[tuple[Result, Summary]]:
        plain, teacher = self.of(PLAIN), self.of(TEACHER)
        return [
            (one, summarise(one, self.metric, plain, teacher, self.factor, self.lower))
            for one in self.results
        ]


def read_pair(
    rows: PairRows, seeds: Sequence[int], work_dir: str, asked: str | None, failed: Mapping
) -> PairResults:
    """Everything that is known of a pair.

    Raises:
        ValueError: rows without a common metric.
    """
    results = [read_result(row, seeds, work_dir, failed) for row in rows]
    metric = choose_metric(results, asked)
    values = [value for one in results for value in one.scores(metric).values()]
    found = read_json(osp.join(work_dir, costs_folder(rows), COSTS)) or {}
    lower = _lower(rows, metric, seeds)
    factor = 1.0 if lower or any(not 0 <= value <= 1 for value in values) else 100.0
    return PairResults(
        rows, results, metric, factor, found.get('costs', {}), found.get('notes', ()), lower
    )


def _lower(rows: PairRows, metric: str, seeds: Sequence[int]) -> bool:
    """Whether less is better, as the runs choose their best checkpoints."""
    row = next(iter(rows.trained()), None)
    if row is None or metric in METRICS:
        return lower_is_better(metric)
    hooks = row.read(seeds[0]).get('default_hooks') or {}
    return lower_is_better(metric, hooks.get('checkpoint'))


def costs_folder(rows: PairRows) -> str:
    """Where the costs of a pair are measured, below the work dir."""
    return '_'.join(filter(None, (rows.pair.name, 'costs')))
