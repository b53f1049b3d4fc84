"""Momentum: the moving average of the student is its teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from mmkd.options import check_choice, check_number
from mmkd.schedule import Progress
from mmkd.teacher import Teacher
from mmkd.teachers.copies import copy_of, load, share_buffers, take_weights
from mmkd.teachers.kinds import kind


@kind
class Momentum(Teacher):
    """A teacher that follows the student: ``theta_T <- d theta_T + (1 - d) theta_S`` after a step.

    Mean teacher (Tarvainen and Valpola, NeurIPS 2017), with their ramp ``d = min(decay,
    (1 + t) / (10 + t))`` of the number t of moves done. It starts as a copy of the student when
    training begins. mmdet's ``MeanTeacherHook`` calls ``1 - d`` its momentum.

    Args:
        decay (float): d, from 0 to 1; 1 keeps the student of the start, buffers included.
        ramp (bool): start with a smaller d, so that the first weights are forgotten soon.
        every (int): steps of the optimiser from one move to the next.
        buffers (str): ``'copy'`` takes the student's statistics as they are, ``'average'`` moves
            them as the weights.

    Raises:
        ValueError: decay outside [0, 1]; every below 1.
    """

    of_student = True

    def __init__(
        self, decay: float = 0.999, ramp: bool = True, every: int = 1, buffers: str = 'copy'
    ) -> None:
        self.decay = float(check_number('Momentum', 'decay', decay, 0, 1))
        self.every = check_number('Momentum', 'every', every, 1, whole=True)
        self.buffers = check_choice('Momentum', 'buffers', buffers, ('copy', 'average'))
        self.ramp = ramp
        self.steps = self.moves = 0

    @property
    def loaded(self) -> str:
        ramp = ', with a ramp' * (self.ramp and self.decay < 1)
        return f'the moving average of the student, decay {self.decay:g}{ramp}'

    def rate(self, moves: int) -> float:
        """d of the next move, after so many."""
        return min(self.decay, (1 + moves) / (10 + moves)) if self.ramp else self.decay

    def meet(self, student: nn.Module) -> None:
        self.adopt(copy_of(student), 'student')

    def begin(self, student: nn.Module) -> None:
        take_weights(self.model, student)

    @torch.no_grad()
    def after_step(self, student: nn.Module, progress: Progress) -> None:
        self.steps += 1
        if self.steps % self.every or self.decay == 1:
            return
        keep = self.rate(self.moves)
        self.moves += 1
        pairs = list(zip(self.model.parameters(), student.parameters(), strict=True))
        for own, value in zip(self.model.buffers(), student.buffers(), strict=True):
            if self.buffers == 'average' and own.is_floating_point():
                pairs.append((own, value))
            else:
                own.copy_(value)
        for own, value in pairs:
            own.mul_(keep).add_(value, alpha=1 - keep)

    def synchronise(self) -> None:
        share_buffers(self.model)

    def state_dict(self) -> dict[str, Any]:
        return dict(weights=self.model.state_dict(), steps=self.steps, moves=self.moves)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        load('Momentum', self.model, state['weights'])
        self.steps, self.moves = int(state['steps']), int(state['moves'])
