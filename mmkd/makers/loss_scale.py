"""LossScale: the weight at which a term is as large as the task loss, for ratios of both."""

from __future__ import annotations

import copy
import os.path as osp
from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook

from mmkd.chain import Maker, Product
from mmkd.chain.product import write_json
from mmkd.config import load_config
from mmkd.engine.console.screen import current_screen
from mmkd.engine.launch import apply_options, build_runner, prepare
from mmkd.options import check_number
from mmkd.registry import MAKERS


class Means(Hook):
    """Adds up the task loss and one objective's."""

    def __init__(self, name: str) -> None:
        self.name = f'kd.{name}.loss'
        self.task = self.term = 0.0
        self.count = 0

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        losses = {k: float(v) for k, v in (outputs or {}).items() if 'loss' in k and k != 'loss'}
        self.task += sum(v for k, v in losses.items() if not k.startswith('kd.'))
        self.term += sum(v for k, v in losses.items() if k.startswith(self.name))
        self.count += 1


@MAKERS.register_module()
class LossScale(Maker):
    """Mean task loss over mean loss of an objective, in the first steps at weight 1.

    A ratio a : b of task and distillation means nothing between methods, whose losses differ by
    orders of magnitude. With ``weight = scale * b / a`` both are in this ratio when training
    begins. ``scale.json`` has the scale, and the weights of 1:1, 1:2, 2:1 and 3:1; compare the runs
    with ``mmkd sweep``.

    Args:
        config (str): of a distilled run; a stage's ``teacher=`` replaces its teacher.
        steps (int): of training.
        objective (str | None): its name, if there are several.
        options (dict): of that config, as ``--cfg-options``.

    Raises:
        ValueError: several processes; no objective of that name; a loss that is 0 or negative, for
            which no scale makes sense.
    """

    RATIOS = ('1:1', '1:2', '2:1', '3:1')

    def __init__(
        self,
        config: str,
        steps: int = 200,
        objective: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.config, self.options, self.objective = config, dict(options or {}), objective
        self.steps = check_number('LossScale', 'steps', steps, 1, whole=True)

    def __call__(self, given: Mapping[str, Product], work_dir: str) -> Product:
        from mmkd.analysis.sweep import factor_of

        config = load_config(self.config)
        apply_options(config, self.options)
        name = self._named(config)
        config.model.objectives[name].weight = 1.0
        if 'teacher' in given:
            source = given['teacher']
            config.model.teacher.update(config=source.config, checkpoint=source.checkpoint)
        means = Means(name)
        runner = build_runner(self._short(config, work_dir))
        runner.register_hook(means)
        runner.train()
        task, term = (total / max(means.count, 1) for total in (means.task, means.term))
        if not (task > 0 and term > 0):
            raise ValueError(
                f'LossScale: the task loss is {task:.4g} and that of {name} {term:.4g}; a ratio '
                'needs two losses above 0. Choose the weights by hand.'
            )
        scale = task / term
        weights = {ratio: scale * factor_of(ratio) for ratio in self.RATIOS}
        path = osp.join(work_dir, 'scale.json')
        content = dict(objective=name, scale=scale, task=task, term=term, steps=means.count)
        write_json(path, content | dict(weights=weights))
        found = ', '.join(f'{ratio} {weight:.4g}' for ratio, weight in weights.items())
        current_screen().say(f'task {task:.4g}, {name} {term:.4g}; weights {found}')
        return Product('', path, work_dir)

    def _named(self, config: Any) -> str:
        known = [k for k, v in (config.model.get('objectives') or {}).items() if v is not None]
        if self.objective in known:
            return str(self.objective)
        if len(known) != 1 or self.objective is not None:
            raise ValueError(
                f'LossScale: {self.config} has the objectives {", ".join(known) or "none"}, and '
                f'objective={self.objective!r}. Name one of them.'
            )
        return known[0]

    def _short(self, config: Any, work_dir: str) -> Any:
        """The run, and nothing but training."""
        own = copy.deepcopy(config)
        for split in ('val', 'test'):
            for part in ('dataloader', 'evaluator', 'cfg'):
                own[f'{split}_{part}'] = None
        own.train_cfg = dict(type='IterBasedTrainLoop', max_iters=self.steps)
        own.default_hooks = dict(own.get('default_hooks') or {}, checkpoint=None)
        own.experiment_name, own.resume = 'loss_scale', False
        prepare(own, work_dir=osp.join(work_dir, 'run'))
        return own
