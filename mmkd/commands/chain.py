"""What `mmkd train` and `mmkd plan` do with a chain."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any


def train_chain(args: argparse.Namespace, config: Any, work_dir: str, hooks: Callable) -> None:
    """Run a chain, or one of its stages.

    Raises:
        ValueError: an argument that is for one run.
    """
    from mmkd.engine.console.screen import current_screen

    hooks(config)  # which may ask for the whole log
    if args.resume not in (None, 'auto'):
        raise ValueError(
            f'--resume {args.resume}: a chain finds by itself where to go on; leave it out.'
        )
    chain = _chain(args, config, work_dir, amp=args.amp)
    chain.run(args.only, hooks, current_screen().say)


def plan_chain(args: argparse.Namespace, config: Any) -> None:
    """Print the plans of all stages.

    Raises:
        ValueError: an argument that is for one run.
    """
    if args.step or args.suggest is not None:
        raise ValueError('--step runs a batch of one config: name that of a stage, not the chain.')
    print(_chain(args, config, '', only_look=True).text())


def _chain(args: argparse.Namespace, config: Any, work_dir: str, **options: Any) -> Any:
    from mmkd.chain import Chain

    if config.get('model') is not None:
        raise ValueError(
            f'{config.filename} has both stages and a model, so it is not clear which is meant. '
            'Let a stage name the config of that model.'
        )
    _check_keys(config)
    seed = (config.get('randomness') or {}).get('seed')
    shared = config.get('options') or {}
    launcher = args.launcher
    return Chain(config.stages, work_dir, seed, shared, launcher=launcher, **options)


def _check_keys(config: Any) -> None:
    """Refuse what a run would read but a chain does not; other names may be variables of the file.

    Raises:
        ValueError: such a key, or one that is misspelt; options that are no mapping.
    """
    import inspect

    from mmengine.runner import Runner

    from mmkd.engine.overrides import one_slip

    known = ('stages', 'options', 'randomness', 'work_dir')
    set_by_commands = {'launcher', 'resume', 'load_from', 'cfg'}
    of_runs = {*inspect.signature(Runner).parameters, 'model'} - {*known, *set_by_commands}
    for key in config:
        near = next((name for name in known if key not in known and one_slip(key, name)), None)
        if near:
            raise ValueError(f'{config.filename} has {key!r}. Did you mean {near!r}?')
        if key in of_runs:
            raise ValueError(
                f'{config.filename} has {key!r}, which a chain does not read. For all stages write '
                f'options=dict({key}=…), for one of them stages.<name>.options.'
            )
    if not isinstance(config.get('options') or {}, Mapping):
        raise ValueError(
            f'{config.filename}: options = {config.options!r} is no mapping. Write '
            "options={'train_cfg.max_epochs': 12}."
        )
