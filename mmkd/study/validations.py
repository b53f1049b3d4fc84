"""A line for each validation of the runs that are under way."""

from __future__ import annotations

import os.path as osp
import time
from collections.abc import Sequence

from mmkd.chain.product import read_json
from mmkd.engine.console.lines import main_metric
from mmkd.study.measure import MEASURED
from mmkd.study.processes import Say, Task

#: seconds between two looks at the files
PAUSE = 2.0


class Validations:
    """Called with the running tasks every now and then.

    Args:
        work_dir (str): of the study.
        say (callable): gets the lines.
    """

    def __init__(self, work_dir: str, say: Say) -> None:
        self.work_dir, self.say, self.looked = work_dir, say, 0.0
        self.began = time.time()
        self.told: dict[str, int] = {}

    def __call__(self, running: Sequence[Task]) -> None:
        if time.time() - self.looked < PAUSE:
            return
        self.looked = time.time()
        for task in running:
            found = read_json(osp.join(self.work_dir, task.name, MEASURED)) or {}
            curve = {int(at): scores for at, scores in found.get('curve', {}).items()}
            for at in sorted(at for at in curve if at > self.told.get(task.name, 0)):
                self.told[task.name] = at
                metric = main_metric([], curve[at])
                score = f'  {metric.rpartition("/")[2]} {curve[at][metric]:.4g}' if metric else ''
                minutes = (time.time() - self.began) / 60
                whole = f'{found["unit"]} {at} of {found["length"]}'
                self.say(f'{task.name}: {whole}{score}   ({minutes:.1f} min)')
