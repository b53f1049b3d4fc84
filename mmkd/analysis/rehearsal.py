"""What a run does and refuses before its first step, without a step."""

from __future__ import annotations

import contextlib
import copy
import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from torch import nn

from mmkd.borrowed import unwrapped
from mmkd.chain.isolation import isolated
from mmkd.engine.launch import build_runner, check_data, prepare
from mmkd.engine.runner import Runner
from mmkd.registry import MODELS
from mmkd.teachers import groups_of


def rehearse(
    config: Config,
    built: Callable[[nn.Module], Any] = lambda model: None,
    ready: Callable[[nn.Module, Iterable], Any] = lambda model, loader: None,
) -> None:
    """Build the run of a config, and go through all that is in front of its first step.

    Data, models, optimisers and teachers are built, weights are loaded, and every check of training
    is made. Nothing is left: logs go into a folder that is removed, and no tracker hears of it. Of
    a run of several processes only the paths of its data are checked. A config without a seed has
    the seed 0.

    Args:
        config (Config): of a training; unchanged.
        built: called with the model when it is built.
        ready: called with the model and the training batches when the first step would be next.

    Raises:
        Exception: whatever training raises before its first step.
    """
    own = copy.deepcopy(config)
    if groups_of(own.model):
        model = MODELS.build(own.model)
        built(model)
        check_data(own, 'train', 'val')
        model.init_weights()
        ready(model.train(), Runner.build_dataloader(own.train_dataloader, seed=0))
        return
    own.resume, own.log_level = False, 'WARNING'
    random = dict(own.get('randomness') or {})
    own.randomness = dict(random, seed=random.get('seed') or 0)
    if isinstance(own.get('visualizer'), Mapping):
        own.visualizer.vis_backends = None
    with tempfile.TemporaryDirectory(prefix='mmkd_') as folder, isolated():
        runner = build_runner(prepare(own, work_dir=folder))
        model = unwrapped(runner.model)
        built(model)
        runner.register_hook(_Stop())
        with contextlib.suppress(_Ready):
            runner.train()
        ready(model.train(), runner.train_dataloader)


class _Ready(Exception):
    """The first step would be next."""


class _Stop(Hook):
    """Ends a run before its first step; the last of all hooks."""

    priority = 'LOWEST'

    def before_train(self, runner: Any) -> None:
        raise _Ready
