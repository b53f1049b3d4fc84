"""How much an objective counts, and numbers of a method, as functions of training progress."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import InitVar, dataclass, fields
from typing import Any

from mmengine.logging import MessageHub

from mmkd.options import check_choice, check_number, match_options
from mmkd.untouched import untouched_random_state

#: under which the Runner tells how many iterations make one step of the optimiser
ACCUMULATION = 'accumulative_counts'


class Progress(float):
    """Fraction of training done, in [0, 1), that also knows iterations.

    Attributes:
        iteration (int): iterations done before this one.
        total (int): iterations of the whole run, at least 1.
        accumulated (int): iterations whose gradients make one step of the optimiser.
        step (int): steps of the optimiser done before this one.
    """

    iteration: int
    total: int
    accumulated: int
    step: int

    def __new__(cls, iteration: int = 0, total: int = 1, accumulated: int = 1) -> Progress:
        total = max(int(total), 1)
        self = super().__new__(cls, iteration / total)
        self.iteration, self.total = int(iteration), total
        self.accumulated, self.step = accumulated, self.iteration // accumulated
        return self

    @classmethod
    def current(cls) -> Progress:
        """The progress of mmengine's running loop; 0 without one."""
        info = MessageHub.get_current_instance().runtime_info
        accumulated = info.get(ACCUMULATION) or 1
        return cls(info.get('iter') or 0, info.get('max_iters') or 1, accumulated)


@dataclass(frozen=True)
class Schedule:
    """A number over the run: a weight, which is off, rises, holds or decays, and is off again.

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
        every (int): turns repeat after this many steps of the optimiser, counted from 0.
        first (int): the step of each turn from which on the weight counts; it is 0 before.
        count (int): for so many steps, then it is 0 until the next turn.
        owner (str): whose number it is, for messages.

    Raises:
        ValueError: a negative or non-finite number, an unknown decay, a fraction above 1, a turn
            that does not fit into ``every``.
    """

    value: float = 1.0
    start: float = 0
    warmup: float = 0
    decay: str | None = None
    end_value: float = 0.0
    stop: float = 1.0
    every: int = 1
    first: int = 0
    count: int = 1
    owner: InitVar[str] = 'weight'

    def __post_init__(self, owner: str) -> None:
        for name in ('value', 'start', 'warmup', 'end_value', 'stop'):
            point = check_number(owner, name, getattr(self, name), 0)
            if name in ('start', 'warmup', 'stop') and isinstance(point, float) and point > 1:
                raise ValueError(
                    f'{owner}: {name}={point} is a fraction of the run and cannot exceed 1; '
                    f'write the integer {int(point)} for iterations.'
                )
        decay = check_choice(owner, 'decay', self.decay, (None, 'linear', 'cosine'))
        object.__setattr__(self, 'decay', decay)
        if self.decay is None and self.end_value:
            raise ValueError(f"{owner}: end_value needs decay='linear' or decay='cosine'.")
        for name, least in (('every', 1), ('first', 0), ('count', 1)):
            whole = check_number(owner, name, getattr(self, name), least, whole=True)
            object.__setattr__(self, name, whole)
        if self.first + self.count > self.every:
            raise ValueError(
                f'{owner}: first={self.first} and count={self.count} do not fit into '
                f'every={self.every} steps; first + count may be {self.every} at most.'
            )

    @classmethod
    def of(cls, weight: Any, owner: str = 'weight') -> Schedule:
        """Read a config entry: a number is the constant schedule, a mapping names its points."""
        if isinstance(weight, Schedule):
            return weight
        if isinstance(weight, Mapping):
            known = [field.name for field in fields(cls)]
            return cls(**match_options(owner, weight, known), owner=owner)
        return cls(float(check_number('', owner, weight, 0)))

    @property
    def is_zero(self) -> bool:
        """True when the weight is 0 at every moment, as in a baseline run."""
        return self.value == 0 and self.end_value == 0

    def __call__(self, progress: float) -> float:
        """Weight at ``progress`` (fraction of the run, or a :class:`Progress`)."""
        total = getattr(progress, 'total', None)
        start, warmup, stop = (self._fraction(x, total) for x in self._points())
        now = float(progress)
        if now < start or (now >= stop and stop < 1.0) or not self.has_turn(progress):
            return 0.0
        if now < start + warmup:
            return self.value * (now - start) / warmup
        return self._decayed(now, start + warmup, stop)

    def has_turn(self, progress: float) -> bool:
        """Whether ``first <= step % every < first + count``."""
        if self.every == 1:
            return True
        step = getattr(progress, 'step', None)
        if step is None:
            raise ValueError(
                f'every={self.every} counts steps, but the step is not known; call the schedule '
                'with a Progress.'
            )
        return self.first <= step % self.every < self.first + self.count

    def number(self, progress: float) -> float:
        """A method's own number at ``progress``, which is never off: ``value`` until ``start``,
        ``end_value`` from ``stop`` on, if it decays."""
        total = getattr(progress, 'total', None)
        start, _, stop = (self._fraction(x, total) for x in self._points())
        return self._decayed(max(float(progress), start), start, stop)

    @property
    def last(self) -> float:
        """The last value of a number."""
        return self.value if self.decay is None else self.end_value

    def _decayed(self, now: float, top: float, stop: float) -> float:
        if self.decay is None:
            return self.value
        done = min((now - top) / max(stop - top, 1e-12), 1.0)
        left = 1 - done if self.decay == 'linear' else 0.5 * (1 + math.cos(math.pi * done))
        return self.end_value + (self.value - self.end_value) * left

    def counts(self, total: int, accumulated: int = 1) -> bool:
        """Whether the weight is above 0 at some iteration of a run of ``total``."""
        first = math.ceil(self._fraction(self.start, total) * total)
        turns = range(first, first + 2 + self.every * accumulated)
        steps = [i for i in (*turns, total - 1) if i < total]
        return any(self(Progress(i, total, accumulated)) > 0 for i in steps)

    def moves(self, total: int) -> bool:
        """Whether a number has another value than its first at some iteration of a run."""
        return self.number(Progress(total - 1, total)) != self.value

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


def accept_schedules(init: Callable[..., None]) -> Callable[..., None]:
    """An ``__init__`` whose options in the class's ``scheduled`` may be schedules.

    It gets numbers only, so that its own checks decide: those at the end first, for an instance
    that is thrown away, then those at the start. The schedules are kept in ``schedules``.
    """

    @functools.wraps(init)
    def wrapped(self: Any, *args: Any, **options: Any) -> None:
        kind = type(self)
        given = {
            name: read_number(f'{kind.__name__}: {name}', options[name])
            for name in kind.scheduled
            if isinstance(options.get(name), (Mapping, Schedule))
        }
        if given:
            with untouched_random_state():
                kind(*args, **(options | {name: one.last for name, one in given.items()}))
            options |= {name: one.value for name, one in given.items()}
        init(self, *args, **options)
        if given:
            self.schedules = given

    return wrapped


def read_number(owner: str, entry: Any) -> Schedule:
    """The schedule of a method's number.

    Args:
        owner (str): method and option, for messages.
        entry (dict | Schedule): ``value``, ``start``, ``decay``, ``end_value``, ``stop``.

    Raises:
        ValueError: no ``value``; what only a weight has.
    """
    if isinstance(entry, Mapping) and not any(str(key).lower() == 'value' for key in entry):
        raise ValueError(
            f'{owner} must be a finite number, or dict(value=…, decay=…, end_value=…), '
            f'found {entry!r}.'
        )
    schedule = Schedule.of(entry, owner)
    if schedule.warmup or schedule.every > 1:
        raise ValueError(
            f'{owner} is never off, so it has no warmup and no every. It changes from value to '
            'end_value between start and stop.'
        )
    return schedule
