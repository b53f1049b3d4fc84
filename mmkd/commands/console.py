"""The console of a command: the few lines of a person, or the whole log."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

#: the rank of this process, as each launcher says it
_RANKS = dict(pytorch='RANK', slurm='SLURM_PROCID', mpi='OMPI_COMM_WORLD_RANK')


@contextlib.contextmanager
def console(args: argparse.Namespace) -> Iterator[Callable[[Any], list]]:
    """While it lasts the screen shows what a person needs, unless the whole log is asked for.

    Yields:
        Callable[[Config], list[Hook]]: the hooks that a run with such a config needs.
    """
    from mmkd.config import type_name
    from mmkd.engine.console.hook import ConsoleHook
    from mmkd.engine.console.screen import Screen

    if args.verbose or _asked_for_all():
        yield lambda config: []
        return
    rank = int(os.environ.get(_RANKS.get(args.launcher, ''), 0))
    with Screen(speaks=rank == 0) as screen:

        def hooks(config: Any) -> list:
            if config.get('verbose'):
                screen.close()
            present = [type_name(hook) for hook in config.get('custom_hooks') or []]
            if config.get('verbose') or 'ConsoleHook' in present:
                return []
            return [ConsoleHook()]

        yield hooks


@contextlib.contextmanager
def without_log() -> Iterator[None]:
    """Leave all but warnings and errors of mmengine's log, and what packages print about
    themselves, off the screen of a command that has no Runner, and so no log file.
    MMKD_VERBOSE=1 shows them."""
    from mmengine.logging import MMLogger

    from mmkd.engine.console.noise import without_chatter

    if _asked_for_all():
        yield
        return
    found = [h for h in MMLogger.get_instance('mmengine').handlers if h.level < logging.WARNING]
    handlers = [(handler, handler.level) for handler in found]
    for handler, _ in handlers:
        handler.setLevel(logging.WARNING)
    try:
        with without_chatter():
            yield
    finally:
        for handler, level in handlers:
            handler.setLevel(level)


def _asked_for_all() -> bool:
    return os.environ.get('MMKD_VERBOSE', '0') not in ('', '0')
