"""One line in the log about the cost of distillation."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from torch import nn

from mmkd.borrowed import unwrapped
from mmkd.options import check_number
from mmkd.registry import HOOKS
from mmkd.teacher import parts_of
from mmkd.timing import StepTimer


@HOOKS.register_module()
class OverheadHook(Hook):
    """After a warm-up, time some steps and log their cost against plain training, once.

    Plain training is what remains when teacher, objectives and the objectives' part of the
    backward pass, each timed on its own, are taken off.

    Args:
        warmup (int): steps before the measurement.
        steps (int): steps measured.
    """

    priority = 'VERY_LOW'

    def __init__(self, warmup: int = 20, steps: int = 10) -> None:
        self.warmup = check_number('OverheadHook', 'warmup', warmup, 0, whole=True)
        self.steps = check_number('OverheadHook', 'steps', steps, 1, whole=True)
        self.done = 0
        self.total = StepTimer()
        self.measured = ''  # the line, once it is known

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        model = _distiller(runner)
        if model is None or self.done > self.warmup + self.steps:
            return
        measuring = self.warmup <= self.done < self.warmup + self.steps
        model.timer.enabled = self.total.enabled = measuring
        if measuring:
            self.span = self.total('step')
            self.span.__enter__()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        model = _distiller(runner)
        if model is None:
            return
        if self.total.enabled:
            self.span.__exit__(None, None, None)
            self.total.enabled = model.timer.enabled = False
        self.done += 1
        if self.done == self.warmup + self.steps:
            self.measured = self.report(model)
            runner.logger.info(self.measured)

    def report(self, model: Any) -> str:
        """The line, from the two timers."""
        seconds = {
            part: model.timer.seconds(part) / self.steps
            for part in (
                'teacher',
                'peers',
                'objectives',
                'objectives_backward',
                'peers_backward',
                'balance',
            )
        }
        # These ran twice: once for the clock, once for real.
        again = seconds['objectives_backward'], seconds['peers_backward']
        step = self.total.seconds('step') / self.steps - sum(again)
        objectives, peers = seconds['objectives'] + again[0], seconds['peers'] + again[1]
        balance = seconds['balance']
        plain = max(step - seconds['teacher'] - objectives - peers - balance, 1e-9)
        balanced = f', {balance * 1e3:.0f} ms balance' if model.timer.marks['balance'] else ''
        weights = sum(_bytes(part.model) for part in parts_of(model.teachers).values())
        beside = _bytes(model.peers)
        more = f'{peers * 1e3:.0f} ms peers, ' if model.peers else ''
        held = f'{beside / 2**20:.0f} weights of peers, ' if model.peers else ''
        alone = model.task_weight is None or 'student' not in model.trains
        # Without the student's own losses there is no plain training to compare with.
        times = '' if alone else f', {step / plain:.2f} x plain training'
        return (
            f'cost: {step * 1e3:.0f} ms a step{times} '
            f'({plain * 1e3:.0f} ms student, {seconds["teacher"] * 1e3:.0f} ms teacher, '
            f'{more}{objectives * 1e3:.0f} ms objectives{balanced}); about '
            f'{(weights + beside + model.timer.saved_bytes) / 2**20:.0f} MiB more memory '
            f'({weights / 2**20:.0f} teacher weights, {held}'
            f'{model.timer.saved_bytes / 2**20:.0f} kept for the objectives)'
            f'{_who(model)}'
        )


def _bytes(model: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters())


def _who(model: Any) -> str:
    """Who trains, where the student does not, or in turns."""
    trains = model.trains
    return '' if 'student' in trains and not trains.in_turns else f'; trains: {trains}'


def _distiller(runner: Any) -> Any:
    model = unwrapped(runner.model)
    return model if hasattr(model, 'timer') else None
