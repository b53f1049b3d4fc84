"""What a run does and refuses before its first step, without a step."""

from __future__ import annotations

import contextlib
import copy
import tempfile
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook

from mmkd.chain.isolation import isolated
from mmkd.engine.launch import build_runner, check_data, prepare
from mmkd.teachers import groups_of


def rehearse(config: Config) -> None:
    """Build the run of a config, and go through all that is in front of its first step.

    Data, models, optimisers and teachers are built, weights are loaded, and every check of training
    is made. Nothing is left: logs go into a folder that is removed, and no tracker hears of it. Of
    a run of several processes only the paths of its data are checked.

    Args:
        config (Config): of a training; unchanged.

    Raises:
        Exception: whatever training raises before its first step.
    """
    if groups_of(config.model):
        check_data(config, 'train', 'val')
        return
    own = copy.deepcopy(config)
    own.resume, own.log_level = False, 'WARNING'
    if isinstance(own.get('visualizer'), Mapping):
        own.visualizer.vis_backends = None
    with tempfile.TemporaryDirectory(prefix='mmkd_') as folder, isolated():
        runner = build_runner(prepare(own, work_dir=folder))
        runner.register_hook(_Stop())
        with contextlib.suppress(_Ready):
            runner.train()


class _Ready(Exception):
    """The first step would be next."""


class _Stop(Hook):
    """Ends a run before its first step; the last of all hooks."""

    priority = 'LOWEST'

    def before_train(self, runner: Any) -> None:
        raise _Ready
