"""The picture of a study: curves over the training, and bars with their spread."""

from __future__ import annotations

import statistics
from collections import defaultdict

import numpy as np

from mmkd.study.results import PairResults, Result
from mmkd.study.rows import DISTILLED
from mmkd.visualization import canvas
from mmkd.visualization.chart import Bar, bars, curves

WIDTH, HEIGHT = 460, 260
#: curves that can be told apart
CURVES = 6


def picture(pairs: list[PairResults]) -> np.ndarray:
    """A row of two charts for each pair, (H, W, 3) uint8, BGR."""
    return canvas.framed(canvas.below([charts(pair) for pair in pairs]))


def charts(pair: PairResults) -> np.ndarray:
    """Curves and bars of a pair."""
    found = [(one, summary) for one, summary in pair.summaries() if summary.scores]
    fixed = [entry for entry in found if entry[0].row.kind != DISTILLED]
    best = sorted(
        (e for e in found if e[0].row.kind == DISTILLED),
        key=lambda e: e[1].mean * (1 if pair.lower else -1),
    )
    chosen = [*fixed, *best[: CURVES - len(fixed)]]
    colours = {id(one): i for i, (one, _) in enumerate(chosen)}
    lines = {one.row.name: _mean_curve(one, pair) for one, _ in chosen}
    unit = chosen[0][0].unit if chosen else 'epoch'
    name = ' '.join(filter(None, (pair.rows.pair.name, pair.metric)))
    left = curves(
        {key: line for key, line in lines.items() if line},
        f'{name} over {unit}s',
        'identical schedules, mean over seeds',
        (WIDTH, HEIGHT),
    )
    drawn = [
        Bar(one.row.name, s.mean, tuple(s.scores.values()), colours.get(id(one), 7))
        for one, s in found
    ]
    right = bars(drawn, name, 'mean, and the score of each seed', WIDTH)
    return canvas.beside([left, right])


def _mean_curve(one: Result, pair: PairResults) -> dict[int, float]:
    """Mean over seeds at each point where all of them were validated."""
    values: dict[int, list[float]] = defaultdict(list)
    for curve in one.curves.values():
        for at, metrics in curve.items():
            if pair.metric in metrics:
                values[int(at)].append(pair.factor * metrics[pair.metric])
    most = max(map(len, values.values()), default=0)
    return {at: statistics.fmean(found) for at, found in values.items() if len(found) == most}
