"""Snapshot: the student at the end of the last cycle is its teacher in the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from logging import WARNING
from math import ceil
from typing import Any

from mmengine.logging import print_log
from mmengine.optim.scheduler.param_scheduler import CosineRestartParamScheduler
from torch import nn

from mmkd.options import check_list, check_number
from mmkd.schedule import Progress
from mmkd.teacher import Teacher
from mmkd.teachers.copies import copy_of, load, share_buffers, take_weights
from mmkd.teachers.kinds import kind


def boundaries(cycles: int, total: int) -> list[int]:
    """Steps after which cycles 1 to ``cycles - 1`` end: ``ceil(k total / cycles)``."""
    return [-(-k * total // cycles) for k in range(1, cycles)]


@kind
class Snapshot(Teacher):
    """The student, weights and statistics, as it was at the end of the last cycle.

    Snapshot Distillation: Teacher-Student Optimization in One Generation (Yang et al., CVPR 2019).
    Before the first boundary there is none, and objectives that listen to it rest. Let the learning
    rate restart at each boundary: otherwise teacher and student are nearly equal.

    Args:
        cycles (int | None): K cycles of equal length, of which the first has no teacher.
        at (list[int | float] | None): instead, the boundaries themselves: steps, or fractions of
            the run.

    Raises:
        ValueError: both or neither; fewer than one cycle, or more than there are steps; boundaries
            that do not increase or lie outside the run.
    """

    of_student = True

    def __init__(self, cycles: int | None = None, at: Sequence[int | float] | None = None) -> None:
        if (cycles is None) == (at is None):
            raise ValueError(
                'Snapshot needs one of cycles= (a number) and at= (a list of steps or fractions), '
                f'found cycles={cycles!r}, at={at!r}.'
            )
        self.cycles = check_number('Snapshot', 'cycles', cycles, 1, whole=True, optional=True)
        points = [] if at is None else check_list('Snapshot', 'at', at)
        self.at = [check_number('Snapshot', 'at', point, above=0) for point in points]
        self.index = 0

    @property
    def loaded(self) -> str:
        if self.cycles is not None:
            return f'the student at the end of its last cycle, of {self.cycles}'
        return f'the student as it was at {", ".join(map(str, self.at))}'

    @property
    def ready(self) -> bool:
        return self.index > 0

    def boundaries(self, total: int) -> list[int]:
        """Steps after which the student is copied, in a run of ``total``."""
        if self.cycles is not None:
            return boundaries(self.cycles, total)
        return [ceil(p * total) if isinstance(p, float) else p for p in self.at]

    def meet(self, student: nn.Module) -> None:
        self.adopt(copy_of(student), 'student')

    def check(self, runner: Any) -> None:
        total = runner.max_iters
        if self.cycles is not None and self.cycles > total:
            raise ValueError(
                f'Snapshot: cycles={self.cycles}, but the run has {total} steps. Take fewer cycles.'
            )
        found = self.boundaries(total)
        if found != sorted(set(found)) or any(not 0 < step < total for step in found):
            raise ValueError(
                f'Snapshot: at={self.at} means steps {found} of a run of {total}. Boundaries must '
                f'increase and lie between 0 and {total}; fractions are written as 0.5.'
            )
        missing = sorted(set(found) - restarts(runner))
        if missing:
            print_log(
                f'Snapshot: the learning rate does not restart at step '
                f'{", ".join(map(str, missing))}, where the student becomes its own teacher, so '
                'that both stay nearly equal. Use CosineRestartLR with the same cycles.',
                'current',
                WARNING,
            )

    def after_step(self, student: nn.Module, progress: Progress) -> None:
        steps = self.boundaries(progress.total)
        done = sum(step <= progress.iteration + 1 for step in steps)
        if done > self.index:
            self.index = done
            take_weights(self.model, student)
            share_buffers(self.model)

    def state_dict(self) -> dict[str, Any]:
        weights = self.model.state_dict() if self.ready else {}
        return dict(index=self.index, weights=weights)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.index = int(state['index'])
        if self.ready:
            load('Snapshot', self.model, state['weights'])


def restarts(runner: Any) -> set[int]:
    """Steps of a run at which a cosine schedule of the learning rate starts again."""
    schedulers = runner.param_schedulers or []
    listed = schedulers.values() if isinstance(schedulers, dict) else [schedulers]
    found: set[int] = set()
    for scheduler in (one for group in listed for one in group):
        if isinstance(scheduler, CosineRestartParamScheduler) and scheduler.param_name == 'lr':
            epoch = len(runner.train_dataloader) if scheduler.by_epoch else 1
            found |= {end * epoch for end in scheduler.cumulative_periods}
    return found
