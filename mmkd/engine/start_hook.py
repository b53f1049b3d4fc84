"""The weights with which a stage of a chain starts."""

from __future__ import annotations

import re
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from torch import nn

from mmkd.borrowed import unwrapped
from mmkd.checkpoint import read_checkpoint
from mmkd.checkpoint.weights import EDITS, OBJECTIVES, below, weights_in
from mmkd.registry import HOOKS
from mmkd.teacher import load_strictly


@HOOKS.register_module()
class StartHook(Hook):
    """Loads the student and the objectives from files before the first step, not in a resumed run.

    Args:
        student (str): a checkpoint; every weight of the student must be in it. What edits learn
            beside the weights, such as ranges of activations, begins anew if the file has none.
        objectives (str): a checkpoint of another phase; what its objectives have under the same
            name and in the same shape carries on. What this phase does not have is left out and
            listed in the log.

    Raises:
        ValueError: the student's weights do not fit; no weight of an objective does.
    """

    priority = 'VERY_HIGH'  # before whatever copies or compares the student's weights

    def __init__(self, student: str = '', objectives: str = '') -> None:
        self.student, self.objectives = student, objectives

    def before_train(self, runner: Any) -> None:
        if runner.iter or getattr(runner, '_resume_from', None):
            return
        model = unwrapped(runner.model)
        if self.student:
            self._start(getattr(model, 'student', model))
        if self.objectives:
            self._carry_on(model)

    def _start(self, student: nn.Module) -> None:
        anew: tuple[str, ...] = ()
        if any(key.startswith(EDITS) for key in student.state_dict()):
            told = weights_in(read_checkpoint(self.student))
            anew = () if any(key.startswith(EDITS) for key in told) else (f'^{re.escape(EDITS)}',)
        count = load_strictly(student, self.student, anew, who='student')
        print_log(f'student: all {count} weights from {self.student}', logger='current')

    def _carry_on(self, model: Any) -> None:
        file = self.objectives
        given = below(weights_in(read_checkpoint(file)), OBJECTIVES, file)
        own = model.objectives.state_dict()
        fits = {k: v for k, v in given.items() if k in own and own[k].shape == v.shape}
        if not fits:
            raise ValueError(
                f'objectives: none of the {len(given)} weights of objectives in {file} '
                f'({", ".join(list(given)[:2])}, …) is one of this run ({", ".join(list(own)[:2])}'
                ', …). Give an objective the same name in both phases.'
            )
        model.objectives.load_state_dict(fits, strict=False)
        left = [key for key in given if key not in fits]
        names = f'; left out: {", ".join(left[:10])}{", …" * (len(left) > 10)}' if left else ''
        print_log(f'objectives: {len(fits)} weights from {file}{names}', logger='current')
