"""mmengine's EarlyStoppingHook, whose count continues after an interruption."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import EarlyStoppingHook as MMEarlyStoppingHook

from mmkd.registry import HOOKS


@HOOKS.register_module()
class EarlyStoppingHook(MMEarlyStoppingHook):
    """Its count is part of the message hub, and so of every checkpoint.

    It counts before a checkpoint of the same validation is written; stock counts afterwards.
    Arguments are those of :class:`mmengine.hooks.EarlyStoppingHook`.
    """

    priority = 'LOW'

    @property
    def _key(self) -> str:
        return f'early_stopping_{self.monitor}'

    def before_train(self, runner: Any) -> None:
        """Go on counting where the interrupted run was."""
        state = runner.message_hub.runtime_info.get(self._key) if runner._resume else None
        if isinstance(state, dict):
            self.wait_count = int(state.get('wait_count', 0))
            self.best_score = float(state.get('best_score', self.best_score))
            runner.train_loop.stop_training |= bool(state.get('stop'))

    def after_val_epoch(self, runner: Any, metrics: dict | None = None) -> None:
        """Count, decide, and remember both."""
        super().after_val_epoch(runner, metrics or {})
        state = dict(
            wait_count=self.wait_count,
            best_score=float(self.best_score),
            stop=runner.train_loop.stop_training,
        )
        runner.message_hub.update_info(self._key, state)
