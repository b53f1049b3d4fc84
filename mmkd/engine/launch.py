"""From a config to a running Runner: shared by all commands."""

from __future__ import annotations

import os
import os.path as osp
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner as StockRunner

from mmkd.borrowed import unwrapped
from mmkd.checkpoint import trust_checkpoints
from mmkd.checks.data_guard import DataGuardHook
from mmkd.checks.in_vain import no_amp
from mmkd.checks.preflight import PreflightHook
from mmkd.config import default_work_dir, distils, load_config, type_name
from mmkd.datasets.protection import check_evaluator, check_paths
from mmkd.engine.console.hook import ConsoleHook  # noqa: F401  (registers it)
from mmkd.engine.overrides import check_names, check_overrides
from mmkd.engine.runner import Runner
from mmkd.engine.start_hook import StartHook  # noqa: F401  (registers it)
from mmkd.engine.student_config import RUN_HOOKS, model_for
from mmkd.engine.wrapping import wrap_stock
from mmkd.engine.writable import make_folder
from mmkd.errors.ending import Stopped, keep_tracebacks_in, last_saved, stop_behind, way_on
from mmkd.groups import alone
from mmkd.teacher import load_strictly
from mmkd.teachers import groups_of


def prepare(config: Config, work_dir: str | None = None, amp: bool = False) -> Config:
    """Complete a config for training: work dir, mmkd's hooks, AMP; refuses known errors.

    Raises:
        FileNotFoundError: a dataset path that does not exist.
        ValueError: AMP without a GPU; a checkpoint without a name.
    """
    if config.get('load_from') == '':
        raise ValueError(
            'the checkpoint to start or resume from has an empty name: was a variable of the shell '
            'not set? Name a file, or leave out load_from and what follows --resume.'
        )
    check_model(config)
    for split in ('val', 'test'):
        check_loop(config, split)
    config.work_dir = work_dir or config.get('work_dir') or default_work_dir(config.filename)
    keep_tracebacks_in(config.work_dir)
    present = {type_name(hook).casefold() for hook in config.get('custom_hooks') or []}
    names = [hook.__name__ for hook in RUN_HOOKS]
    missing = [dict(type=f'mmkd.{name}') for name in names if name.casefold() not in present]
    config.custom_hooks = [*(config.get('custom_hooks') or []), *missing]
    if amp:
        enable_amp(config)
    check_data(config, 'train', 'val')
    return config


def check_model(config: Config) -> None:
    """Stop at a config that has no model, or a Distiller without a student, or a misspelt name.

    Raises:
        ValueError: which of them it is.
    """
    check_names(config)
    model = config.get('model')
    if not isinstance(model, Mapping):
        raise ValueError(
            f'{config.filename} has no model, found {model!r}. Name a recipe that has one in '
            '_base_, or write model=dict(type=…).'
        )
    if distils(model) and not model.get('student'):
        raise ValueError(
            f'{config.filename}: the Distiller has no student, found {model.get("student")!r}. '
            'Write student=_base_.model.'
        )


def check_loop(config: Config, split: str) -> None:
    """Stop at a validation or test of which only a part is written; raises ValueError."""
    names = [f'{split}_{part}' for part in ('dataloader', 'evaluator', 'cfg')]
    missing = [name for name in names if config.get(name) is None]
    if missing and len(missing) < len(names):
        rest = [name for name in names if name not in missing]
        raise ValueError(
            f'{config.filename} has {" and ".join(rest)}, but no {" and ".join(missing)}: mmengine '
            'needs all three, or none of them (= None).'
        )


def check_data(config: Config, *splits: str) -> None:
    """Stop now if a file that a split needs is not there; raises FileNotFoundError."""
    for split in splits:
        if config.get(f'{split}_dataloader'):
            dataset = config[f'{split}_dataloader']['dataset']
            check_paths(dataset, scope=config.get('default_scope'))
            check_evaluator(config.get(f'{split}_evaluator') or [], dataset.get('data_root'))


def check_test_set(config: Config, what: str) -> None:
    """Stop at a config without a test set; raises ValueError.

    Args:
        what (str): what it is for, as the beginning of the message.
    """
    for key in ('test_dataloader', 'test_evaluator'):
        if not config.get(key):
            raise ValueError(
                f'{what}, but {config.filename} has no {key}. Write '
                f'{key} = {key.replace("test", "val")} to take the validation set.'
            )


def enable_amp(config: Config) -> None:
    """Turn the optimiser wrapper into mmengine's mixed-precision one."""
    if not torch.cuda.is_available():
        raise ValueError(no_amp('--amp'))
    wrapper = config.optim_wrapper
    if type_name({'type': 'OptimWrapper', **wrapper}) not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise ValueError(f'--amp replaces OptimWrapper, but the config has {wrapper.type}.')
    wrapper.type = 'AmpOptimWrapper'
    wrapper.setdefault('loss_scale', 'dynamic')


def build_runner(config: Config) -> StockRunner:
    """The Runner of the config, mmkd's by default; OSError for a work dir that is not writable."""
    if config.get('work_dir'):
        make_folder(config.work_dir)
    kind = config.get('runner_type', 'mmkd.Runner')
    if kind == 'mmkd.Runner':
        return Runner.from_cfg(config)
    from mmkd.registry import RUNNERS

    return RUNNERS.build(config)


def train(config: Config, hooks: Iterable[Hook] = (), **options: Any) -> StockRunner:
    """Prepare, build and train with these hooks as well; returns the finished Runner.

    Raises:
        Stopped: Ctrl-C or SIGTERM, with the command that continues.
    """
    config = prepare(config, **options)
    count = groups_of(config.model)
    if count and config.get('launcher', 'none') == 'none':
        raise alone(count)  # before data are read
    runner = build_runner(config)
    for hook in hooks:
        runner.register_hook(hook)
    before = last_saved(runner.work_dir)
    try:
        runner.train()
    except (KeyboardInterrupt, Exception) as error:
        stop = stop_behind(error)
        if stop is None:
            raise
        way = way_on(runner.work_dir, sys.argv, before)
        raise Stopped(way, getattr(stop, 'status', 130)) from None
    return runner


def tester(
    config: Config,
    checkpoint: str,
    work_dir: str | None = None,
    ignore_keys: Iterable[str] = (),
    who: str = 'student',
) -> StockRunner:
    """A Runner that is ready to score a student's checkpoint; no teacher is built.

    Args:
        who (str): ``'peers.<name>'`` scores a peer in the checkpoint instead.

    Raises:
        FileNotFoundError: checkpoint or dataset path does not exist.
        ValueError: the checkpoint does not fit the student.
    """
    check_model(config)
    config.model = model_for(config, who)
    config.work_dir = work_dir or config.get('work_dir') or default_work_dir(config.filename)
    config.load_from, config.resume = None, False
    keep_tracebacks_in(config.work_dir)
    check_data(config, 'test')
    runner = build_runner(config)
    model = unwrapped(runner.model)
    load_strictly(model, checkpoint, ignore_keys, who='test', network=who)
    runner._has_loaded = True
    for kind in (PreflightHook, DataGuardHook):
        if not any(isinstance(hook, kind) for hook in runner.hooks):
            runner.register_hook(kind())
    return runner


def test(
    config: Config, checkpoint: str, hooks: Iterable[Hook] = (), **options: Any
) -> dict[str, float]:
    """Score a student's checkpoint with the config's own test metric, see :func:`tester`."""
    runner = tester(config, checkpoint, **options)
    for hook in hooks:
        runner.register_hook(hook)
    return runner.test()


def read_config(args: Any) -> Config:
    """The config that the arguments shared by the commands name and change."""
    if args.teacher:
        return apply_common(args, wrap_stock(args.config, *args.teacher, args.method)[0])
    return apply_common(args, load_config(args.config))


def move_data(config: Config, root: str) -> None:
    """Change ``data_root`` wherever the config's own value of it went when it was read."""
    old = config.get('data_root')
    if not old:
        return

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            for key in value:
                value[key] = walk(value[key])
        elif isinstance(value, (list, tuple)):
            return type(value)(walk(item) for item in value)
        elif isinstance(value, str) and value.startswith(old):
            return osp.join(root, value[len(old) :].lstrip('/'))
        return value

    walk(config._cfg_dict)


def apply_common(args: Any, config: Config) -> Config:
    """Apply the arguments that all commands share to a config.

    Raises:
        ValueError: a key of ``--cfg-options`` that is misspelt.
    """
    apply_options(config, dict(args.cfg_options or {}))
    if args.trust_checkpoint:
        trust_checkpoints()
    config.launcher = args.launcher
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return config


def apply_options(config: Config, options: Mapping[str, Any], who: str = '--cfg-options') -> None:
    """Change a config as ``--cfg-options`` do; ValueError, from ``who``, for a misspelt key."""
    check_overrides(options, config, who)
    if 'data_root' in options:
        move_data(config, options['data_root'])
    config.merge_from_dict(dict(options))
