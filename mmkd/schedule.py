"""How much an objective counts, as a function of training progress."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from mmengine.logging import MessageHub

from mmkd.options import check_choice, check_number, match_options


class Progress(float):
    """Fraction of training done, in [0, 1), that also knows iterations.

    Attributes:
        iteration (int): optimisation steps done before this one.
        total (int): optimisation steps of the whole run, at least 1.
    """

    iteration: int
    total: int

    def __new__(cls, iteration: int = 0, total: int = 1) -> Progress:
        total = max(int(total), 1)
        self = super().__new__(cls, iteration / total)
        self.iteration, self.total = int(iteration), total
        return self

    @classmethod
    def current(cls) -> Progress:
        """The progress of mmengine's running loop; 0 without one."""
        info = MessageHub.get_current_instance().runtime_info
        return cls(info.get('iter') or 0, info.get('max_iters') or 1)


@dataclass(frozen=True)
class Schedule:
    """Weight of one objective over the run: off, warm-up, hold or decay, off.

    Points of time are fractions of the run when given as ``float`` and iterations when given
    as ``int``, so ``start=400`` is a method's "first 400 iterations without imitation" and
    ``stop=0.5`` is early-stopped distillation.

    Args:
        value (float): the full weight, at least 0.
        start (int | float): the weight is 0 before.
        warmup (int | float): length of the linear rise from 0 to ``value`` after ``start``.
        decay (str | None): ``None`` holds ``value``; ``'linear'`` or ``'cosine'`` lowers it to
            ``end_value`` between the end of the warm-up and ``stop``.
        end_value (float): where the decay ends.
        stop (int | float): the weight is 0 from here on.

    Raises:
        ValueError: a negative or non-finite number, an unknown decay, a fraction above 1.
    """

    value: float = 1.0
    start: float = 0
    warmup: float = 0
    decay: str | None = None
    end_value: float = 0.0
    stop: float = 1.0

    def __post_init__(self) -> None:
        for name in ('value', 'start', 'warmup', 'end_value', 'stop'):
            point = check_number('weight', name, getattr(self, name), 0)
            if name in ('start', 'warmup', 'stop') and isinstance(point, float) and point > 1:
                raise ValueError(
                    f'weight: {name}={point} is a fraction of the run and cannot exceed 1; '
                    f'write the integer {int(point)} for iterations.'
                )
        decay = check_choice('weight', 'decay', self.decay, (None, 'linear', 'cosine'))
        object.__setattr__(self, 'decay', decay)
        if self.decay is None and self.end_value:
            raise ValueError("weight: end_value needs decay='linear' or decay='cosine'.")

    @classmethod
    def of(cls, weight: Any) -> Schedule:
        """Read a config entry: a number is the constant schedule, a mapping names its points."""
        if isinstance(weight, Schedule):
            return weight
        if isinstance(weight, dict):
            return cls(**match_options('weight', weight, [field.name for field in fields(cls)]))
        return cls(float(check_number('', 'weight', weight, 0)))

    @property
    def is_zero(self) -> bool:
        """True when the weight is 0 at every moment, as in a baseline run."""
        return self.value == 0 and self.end_value == 0

    def __call__(self, progress: float) -> float:
        """Weight at ``progress`` (fraction of the run, or a :class:`Progress`)."""
        total = getattr(progress, 'total', None)
        start, warmup, stop = (self._fraction(x, total) for x in self._points())
        now = float(progress)
        if now < start or (now >= stop and stop < 1.0):
            return 0.0
        if now < start + warmup:
            return self.value * (now - start) / warmup
        if self.decay is None:
            return self.value
        top = start + warmup
        done = min((now - top) / max(stop - top, 1e-12), 1.0)
        left = 1 - done if self.decay == 'linear' else 0.5 * (1 + math.cos(math.pi * done))
        return self.end_value + (self.value - self.end_value) * left

    def counts(self, total: int) -> bool:
        """Whether the weight is above 0 at some step of a run of ``total``."""
        first = math.ceil(self._fraction(self.start, total) * total)
        steps = [i for i in (first, first + 1, total - 1) if i < total]
        return any(self(Progress(i, total)) > 0 for i in steps)

    def __str__(self) -> str:
        changed = (f for f in fields(self)[1:] if getattr(self, f.name) != f.default)
        rest = ''.join(f', {f.name} {getattr(self, f.name)}' for f in changed)
        return f'{self.value:g}{rest}'

    def _points(self) -> tuple[float, float, float]:
        return self.start, self.warmup, self.stop

    @staticmethod
    def _fraction(point: float, total: int | None) -> float:
        if isinstance(point, float) or point == 0:
            return float(point)
        if total is None:
            raise ValueError(
                f'{point} is a number of iterations, but the length of the run is not known; '
                'call the schedule with a Progress.'
            )
        return point / total
