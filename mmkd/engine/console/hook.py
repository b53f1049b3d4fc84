"""The few lines of a run that a person reads."""

from __future__ import annotations

import time
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook, LoggerHook
from mmengine.runner import EpochBasedTrainLoop

from mmkd.borrowed import unwrapped
from mmkd.engine.console import lines
from mmkd.engine.console.screen import Screen, adopt, current_screen
from mmkd.engine.console.summary import bests, deciding, find_hook, summary, teachers
from mmkd.errors.origin import short
from mmkd.registry import HOOKS


@HOOKS.register_module()
class ConsoleHook(Hook):
    """Shows the plan in a few lines, the progress, each validation, and at the end a summary.

    The commands ``train`` and ``test`` register it, and keep everything else to the log file. It
    reads the values that mmengine has collected for the log, at the interval of its LoggerHook.
    """

    priority = 'LOWEST'  # after all that writes what is read here

    def __init__(self) -> None:
        self.screen: Screen | None = None  # of rank 0 alone
        self.scores: dict[str, float] = {}
        self.bests: dict[str, tuple[str, float]] = {}

    def before_run(self, runner: Any) -> None:
        adopt(runner.logger)  # of a Runner that is not mmkd's
        if not is_main_process():
            return
        self.screen = current_screen()
        self.began = time.time()
        files = [getattr(handler, 'baseFilename', '') for handler in runner.logger.handlers]
        log = [('log', short(file)) for file in files if file]
        self._say([*lines.network_rows(unwrapped(runner.model)), *log])

    def before_train(self, runner: Any) -> None:
        if self.screen is None:
            return
        logger = find_hook(runner, LoggerHook)
        self.interval = logger.interval if logger else 10
        self.bests = bests(runner)
        train = runner.train_dataloader
        data = f'{type(train.dataset).__name__}, {len(train.dataset)} samples to train'
        if runner.val_loop is not None:
            data += f', {len(runner.val_dataloader.dataset)} to validate'
        length = f'{runner.max_iters} steps'
        if _by_epoch(runner):
            epochs = 'epoch' if runner.max_epochs == 1 else 'epochs'
            length = f'{runner.max_epochs} {epochs} of {len(train)} steps'
        rows = [('data', data), ('training', length)]
        if runner.iter:
            source = getattr(runner, '_resume_from', None)
            done = f'{runner.iter} of {runner.max_iters} steps are done'
            rows.append(('resumed', f'{short(source)}, {done}' if source else done))
        for name, found in teachers(runner).items():
            text = lines.validation(found, lines.main_metric([], found), {}, False)
            count = unwrapped(runner.model).guard.score
            rows.append((name, f'{text} on {count} samples to validate'))
        self._say(rows)

    def _say(self, rows: list[tuple[str, str]]) -> None:
        for line in lines.rows(rows):
            self.screen.say(line)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if self.screen is None or not self._is_due(runner, batch_idx):
            return
        place = f'step {runner.iter + 1}/{runner.max_iters}'
        if _by_epoch(runner):
            step = f'step {batch_idx + 1}/{len(runner.train_dataloader)}'
            place = f'epoch {runner.epoch + 1}/{runner.max_epochs}  {step}'
        hub = runner.message_hub
        text = lines.progress(place, hub, runner.log_processor.window_size)
        self.screen.show(runner.iter + 1, runner.max_iters, text)

    def _is_due(self, runner: Any, batch_idx: int) -> bool:
        if self.every_n_inner_iters(batch_idx, self.interval):
            return True
        end = self.end_of_epoch(runner.train_dataloader, batch_idx)
        return end and len(runner.train_dataloader) <= self.interval

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self._evaluating('validation', batch_idx, len(runner.val_dataloader))

    def after_test_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self._evaluating('test', batch_idx, len(runner.test_dataloader))

    def _evaluating(self, what: str, batch_idx: int, total: int) -> None:
        """Progress where it takes no lines, on a terminal."""
        if self.screen is not None and self.screen.live and batch_idx % max(total // 50, 1) == 0:
            self.screen.show(batch_idx + 1, total, f'{what}  {batch_idx + 1}/{total}')

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        if self.screen is None:
            return
        self.scores = lines.scalars(metrics)
        before, self.bests = self.bests, bests(runner)
        keys = deciding(runner)
        improved = bool(keys) and self.bests.get(keys[0]) not in (None, before.get(keys[0]))
        teacher = next(iter(teachers(runner).values()), {})
        main = lines.main_metric(keys, self.scores)
        text = lines.validation(self.scores, main, teacher, improved)
        place = f'epoch {runner.epoch}' if _by_epoch(runner) else f'step {runner.iter}'
        self.screen.say(f'validation after {place}: {text}')

    def after_test_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        if self.screen is not None:
            self.screen.clear()
            for key, value in lines.scalars(metrics).items():
                self.screen.say(lines.score(key, value))

    def after_train(self, runner: Any) -> None:
        if self.screen is not None:
            self.screen.clear()
            self._say(summary(runner, self.scores, time.time() - self.began))


def _by_epoch(runner: Any) -> bool:
    return isinstance(runner.train_loop, EpochBasedTrainLoop)
