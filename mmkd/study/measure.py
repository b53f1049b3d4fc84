"""What a run of a study notes while it trains: its curve, the time of a step, its memory."""

from __future__ import annotations

import os.path as osp
import resource
import statistics
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from mmkd.chain.product import read_json, write_json
from mmkd.engine.console.lines import scalars

#: in the work dir what is to be done; in a folder what a run noted, what a teacher scores, costs
STUDY, MEASURED, SCORED, COSTS = 'study.json', 'measured.json', 'scored.json', 'costs.json'
KEPT = 2000  # steps whose median counts


class MeasureHook(Hook):
    """Writes ``measured.json`` into the folder of a run; a resumed run goes on with it.

    Its entries: ``curve``, the metrics by number of epochs (of iterations in a run without them);
    ``unit``; ``length``, of the whole run in that unit; ``step``, the median of seconds without the
    loading of data; ``steps``, how many; ``peak``, most bytes that the process held,
    of a GPU where there is one.
    """

    priority = 'LOW'  # before the checkpoint that says that the validation is over

    def __init__(self, folder: str) -> None:
        self.path = osp.join(folder, MEASURED)
        self.curve: dict[str, dict[str, float]] = {}
        self.seconds: deque[float] = deque(maxlen=KEPT)
        self.began, self.unit, self.before = 0.0, 'epoch', 0
        self.length = 0

    def before_train(self, runner: Any) -> None:
        by_epoch = getattr(runner.train_loop, 'max_epochs', None) and runner.cfg.train_cfg.get(
            'by_epoch', True
        )
        self.unit = 'epoch' if by_epoch else 'iteration'
        self.length = runner.max_epochs if by_epoch else runner.max_iters
        kept = (read_json(self.path) or {}) if runner.iter else {}
        self.curve, self.before = kept.get('curve', {}), kept.get('peak', 0)
        self.seconds.extend([kept['step']] * min(kept['steps'], KEPT) if 'step' in kept else [])
        _forget_peak()

    def before_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        self.began = time.perf_counter()

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self.began)

    def before_val(self, runner: Any) -> None:
        self.before = max(self.before, _peak())

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        at = runner.epoch if self.unit == 'epoch' else runner.iter
        self.curve[str(at)] = scalars(metrics)
        self._keep()

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        self._keep()

    def _keep(self) -> None:
        if not is_main_process():
            return
        found: dict[str, Any] = dict(curve=self.curve, unit=self.unit, length=self.length)
        if self.seconds:
            found |= dict(step=statistics.median(self.seconds), steps=len(self.seconds))
        write_json(self.path, found | dict(peak=max(self.before, _peak())))


def _peak() -> int:
    """Most bytes that this process held since :func:`_forget_peak`; of a GPU those allocated."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    status = Path('/proc/self/status')
    for line in status.read_text().splitlines() if status.is_file() else ():
        if line.startswith('VmHWM:'):
            return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == 'darwin' else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _forget_peak() -> None:
    """Begin anew, also where several runs follow in one process; where the system lets us."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    try:
        Path('/proc/self/clear_refs').write_text('5')
    except OSError:
        return
