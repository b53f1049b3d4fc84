"""Puts the guard of mmkd.datasets on the datasets of a run."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook

from mmkd.datasets.guard import protect
from mmkd.registry import HOOKS


@HOOKS.register_module()
class DataGuardHook(Hook):
    """Audit the datasets, drop degenerate boxes and skip unreadable training images.

    Errors and warnings are those of :func:`mmkd.datasets.guard.protect`.
    """

    # Before the first batch is asked for, so before a worker holds a copy of the dataset.
    priority = 'VERY_HIGH'

    def before_train(self, runner: Any) -> None:
        protect(runner.train_dataloader.dataset)
        if runner.val_loop is not None:
            protect(runner.val_dataloader.dataset)

    def before_test(self, runner: Any) -> None:
        protect(runner.test_dataloader.dataset)
