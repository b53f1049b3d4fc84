"""Weights for a config from a few real batches: each term's gradient at a share of the task's."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

from mmkd.analysis.gradients import at_full_value
from mmkd.balance import GradientRatio
from mmkd.balance.balance import Terms
from mmkd.distiller import Distiller
from mmkd.schedule import Progress
from mmkd.tap import Trace

BATCHES = 8
SHARE = 0.3


class Scales(GradientRatio):
    """Measures in every step, and changes nothing.

    Args:
        share (float): wanted ratio of gradients.
    """

    def __init__(self, share: float) -> None:
        super().__init__(ratio=share, every=1, beta=0)
        #: by objective, the gradient of each batch over that of the task
        self.found: dict[str, list[float]] = defaultdict(list)

    def _is_due(self, name: str, iteration: int) -> bool:
        return True

    def __call__(
        self, terms: Terms, task: Mapping[str, Any], trace: Trace, progress: Progress
    ) -> dict[str, float]:
        self.shares, self.silent = {}, set()
        super().__call__(terms, task, trace, progress)
        for name, share in self.shares.items():
            self.found[name].append(share.term / share.task)
        return {}


@dataclass(frozen=True)
class Suggestion:
    """One objective.

    Attributes:
        name (str): of the objective.
        weight (float): of the config, at full value.
        ratios (tuple[float, ...]): its gradient over the task's, by batch; empty where none had
            both.
        share (float): wanted ratio.
        key (str): of the config, for ``--cfg-options``.
    """

    name: str
    weight: float
    ratios: tuple[float, ...]
    share: float
    key: str

    @property
    def suggested(self) -> float:
        """The weight with which the median ratio would be the share."""
        return self.weight * self.share / statistics.median(self.ratios)

    def text(self) -> str:
        if not self.ratios:
            return f'{self.name}: no batch had a gradient of both the term and the task'
        low, middle, high = min(self.ratios), statistics.median(self.ratios), max(self.ratios)
        return (
            f'{self.name}: gradient {middle:.3g} x that of the task ({low:.3g} to {high:.3g}) '
            f'with weight {self.weight:g}; for {self.share:g} x:  {self.key}={self.suggested:.3g}'
        )


def suggest(
    model: Distiller,
    loader: Iterable,
    entries: Mapping[str, Any],
    share: float = SHARE,
    batches: int = BATCHES,
) -> list[Suggestion]:
    """Measure the gradients of all objectives at their taps, as :class:`GradientRatio` would.

    Only training batches are read, nothing is updated but BatchNorm statistics in memory, and a
    ``balance`` of the config is left out.

    Args:
        model (Distiller): in training mode.
        loader (Iterable): training batches; they are repeated where there are fewer than needed.
        entries (Mapping): of the objectives in the config.
        share (float): wanted ratio of each term's gradient to the task's, above 0.
        batches (int): how many are read.

    Raises:
        ValueError: a tap where the task or a term has no gradient.
    """
    at_full_value(model)
    model.balance = scales = Scales(share)
    scales.bind(model.objectives)
    for data in islice(cycle(loader), batches):
        model(**model.data_preprocessor(data, True), mode='loss')
    found = []
    for name in scales.ratios:
        entry = entries[name].get('weight')
        key = f'model.objectives.{name}.weight' + '.value' * isinstance(entry, Mapping)
        weight = model.objectives[name].weight.value
        found.append(Suggestion(name, weight, tuple(scales.found[name]), share, key))
    return found


def report(found: list[Suggestion]) -> str:
    """A line for each objective, and the options that set all weights."""
    options = [f'{one.key}={one.suggested:.3g}' for one in found if one.ratios]
    lines = [one.text() for one in found] or ['no objective trains the student']
    return '\n'.join([*lines, *([f'--cfg-options {" ".join(options)}'] if options else [])])
