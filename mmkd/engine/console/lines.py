"""The lines of the console, as text."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

#: terms of objectives in a line of the progress, and metrics in one of a validation
SHOWN = 4
#: lines for objectives before the first step
OBJECTIVES = 4
_TERM = re.compile(r'train/(kd\.[^.]+\.loss(?!_projection$).*)')  # that one is always 0
_PEER = re.compile(r'train/(peer\.[^.]+)\..*loss.*')


@dataclass
class Losses:
    """Means over the log's window: the total, the task's part of it, and each term's."""

    total: float
    terms: dict[str, float]

    @classmethod
    def read(cls, hub: Any, window: int) -> Losses:
        """From the scalars that mmengine has collected, without a look at the device."""
        scalars = hub.log_scalars
        total = scalars.get('train/loss')
        steps = min(window, _length(total)) if total is not None else 1

        def mean(key: str) -> float:
            # A term that began within the window is 0 before.
            return float(scalars[key].mean(window)) * min(1.0, _length(scalars[key]) / steps)

        terms = {found[1]: mean(key) for key in scalars if (found := _TERM.fullmatch(key))}
        for key in scalars:
            if found := _PEER.fullmatch(key):
                terms[found[1]] = terms.get(found[1], 0.0) + mean(key)
        return cls(float('nan') if total is None else float(total.mean(window)), terms)

    def text(self) -> str:
        """``loss 0.87  task 0.81  kd.fgfi.loss 0.054 (6.2 %)``, the largest terms first."""
        words = [f'loss {self.total:.4g}']
        if self.terms:
            task = self.total - sum(self.terms.values())
            words.append(f'task {0.0 if abs(task) < 1e-6 * abs(self.total) else task:.4g}')
        largest = sorted(self.terms, key=lambda key: -abs(self.terms[key]))
        words += [f'{k} {self.terms[k]:.4g}{self._share(self.terms[k])}' for k in largest[:SHOWN]]
        more = len(largest) - SHOWN
        return '  '.join([*words, *[f'and {more} more'] * (more > 0)])

    def _share(self, term: float) -> str:
        if not self.total > 0 or not np.isfinite(term / self.total):
            return ''
        share = 100 * term / self.total
        return f' ({share:.2g} %)' if share < 99.5 else f' ({share:.0f} %)'


def _length(history: Any) -> int:
    return len(history.data[0])


def progress(place: str, hub: Any, window: int) -> str:
    """Where the run is, how long it still takes, and its losses.

    Args:
        place (str): ``'epoch 3/12  step 200/7330'``.
        hub (MessageHub): mmengine's, with the scalars of each step.
        window (int): steps over which the log takes its means.
    """
    eta = hub.runtime_info.get('eta')
    left = [] if eta is None else [f'eta {duration(eta)}']
    return '  '.join([place, *left, Losses.read(hub, window).text()])


def duration(seconds: float) -> str:
    """``1:02:03``."""
    return str(datetime.timedelta(seconds=int(seconds)))


def score(key: str, value: float) -> str:
    """``bbox_mAP 0.312``; COCO's -1 is where nothing of the kind is in the data."""
    absent = key.startswith('coco/') and value == -1
    return f'{key} {"n/a" if absent else format(float(value), ".4g")}'


def scalars(metrics: Mapping[str, Any] | None) -> dict[str, float]:
    """The numbers among the metrics of an evaluation."""
    numbers = (int, float, np.number)
    return {k: float(v) for k, v in (metrics or {}).items() if isinstance(v, numbers)}


def main_metric(deciding: Sequence[str], metrics: Iterable[str]) -> str | None:
    """The metric that chooses the best checkpoint, else the mean over classes, else the first."""
    keys = list(metrics)
    means = [key for key in keys if re.search(r'(mAP|mIoU)$', key)]
    return next(iter([*deciding, *means, *keys]), None)


def validation(
    metrics: Mapping[str, float], main: str | None, teacher: Mapping[str, float], best: bool
) -> str:
    """One line: the metric that decides first, beside the teacher's where that is known.

    Its variants follow (``bbox_mAP_50``), then the others, such as those of single classes.
    """
    keys = sorted(metrics, key=lambda key: (key != main, not key.startswith(f'{main}_')))
    words = [score(key, metrics[key]) for key in keys[:SHOWN]]
    words[1:] = [word.partition('/')[2] or word for word in words[1:]]
    if keys and keys[0] in teacher:
        words[0] += f' (teacher {teacher[keys[0]]:.4g})'
    return '  '.join([*words, *['the best so far'] * best]) or 'no metric'


def rows(named: Sequence[tuple[str, str]]) -> list[str]:
    """Lines of two columns."""
    width = max([9, *(len(name) for name, _ in named)])
    return [f'{name:{width}} {text}' for name, text in named if text]


def plan_rows(model: Any) -> list[tuple[str, str]]:
    """Student, teachers and objectives of a Distiller, a line each."""
    plan = model.plan
    found = [('student', _network(plan.student))]
    found += [(name, f'{_network(peer)}, learns too') for name, peer in plan.peers.items()]
    for name, teacher in plan.teachers.items():
        found.append((name, f'{_teacher(teacher)}, {teacher.loaded}'))
    objectives = list(plan.objectives.items())
    for name, objective in objectives[:OBJECTIVES]:
        who = plan.called(objective)
        sides = [(who[0], objective.student_taps)]
        sides += [(judge, objective.teacher_taps) for judge in who[1:]]
        named = [one not in ('student', 'teacher') for one in who]
        places = [
            f'{one}: ' * any(named) + ', '.join(map(str, taps)) for one, taps in sides if taps
        ]
        text = f'{type(objective).__name__}, weight {objective.weight}'
        text += f', {" <- ".join(filter(None, places))}' * any(places)
        levels = plan.seen.get(f'{name}.student')
        count = len(levels or ())
        text += f', {count} maps' * (count > 1)
        count = sum(p.numel() for p in objective.parameters())
        found.append((name, text + f', trains {count:,} parameters of its own' * bool(count)))
    more = len(objectives) - OBJECTIVES
    return found + [('', f'and {more} more objective{"s" * (more > 1)}')] * (more > 0)


def _network(model: Any) -> str:
    count = sum(p.numel() for p in model.parameters())
    return f'{type(model).__name__}, {count / 1e6:.2f} M parameters'


def _teacher(teacher: Any) -> str:
    """A teacher of several networks, or of none, by its kind."""
    models = {id(part.model): part.model for part in teacher.parts().values()}
    count = sum(p.numel() for model in models.values() for p in model.parameters())
    if count and [*models] == [id(teacher.model)]:
        return _network(teacher.model)
    size = f', {count / 1e6:.2f} M parameters' if count else ''
    return f'{type(teacher).__name__}{size}'


def network_rows(model: Any) -> list[tuple[str, str]]:
    """The trained model, distilled or plain."""
    return plan_rows(model) if hasattr(model, 'plan') else [('model', _network(model))]
