"""What of a stage outlives a kill beside its checkpoints: the last scores, and its seconds."""

from __future__ import annotations

import os.path as osp
import time
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from mmkd.chain.product import read_json, write_json
from mmkd.engine.console.lines import scalars

PROGRESS = 'progress.json'


class ProgressHook(Hook):
    """Keeps the metrics of the last validation, and the seconds of all processes of a stage."""

    priority = 'LOW'  # before the checkpoint that says that the validation is over

    def __init__(self, folder: str) -> None:
        self.path, self.began = osp.join(folder, PROGRESS), time.time()
        self.scores: dict[str, float] = {}
        self.before = 0.0

    def before_train(self, runner: Any) -> None:
        kept = read_json(self.path) or {}
        if runner.iter:
            self.scores, self.before = kept.get('scores', {}), kept.get('seconds', 0.0)

    @property
    def seconds(self) -> float:
        return self.before + time.time() - self.began

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        self.scores = scalars(metrics)
        self._keep()

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        self._keep()

    def _keep(self) -> None:
        if is_main_process():
            content = dict(scores=self.scores, seconds=round(self.seconds, 1))
            write_json(self.path, content)
