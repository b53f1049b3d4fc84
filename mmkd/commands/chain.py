"""What `mmkd train` and `mmkd plan` do with a chain."""

from __future__ import annotations

import argparse
from collections.abc import Callable
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
    if args.step:
        raise ValueError('--step runs a batch of one config: name that of a stage, not the chain.')
    print(_chain(args, config, '', only_look=True).text())


def _chain(args: argparse.Namespace, config: Any, work_dir: str, **options: Any) -> Any:
    from mmkd.chain import Chain

    if config.get('model') is not None:
        raise ValueError(
            f'{config.filename} has both stages and a model, so it is not clear which is meant. '
            'Let a stage name the config of that model.'
        )
    seed = (config.get('randomness') or {}).get('seed')
    shared = config.get('options') or {}
    launcher = args.launcher
    return Chain(config.stages, work_dir, seed, shared, launcher=launcher, **options)
