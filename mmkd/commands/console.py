"""The console of a command that runs a Runner: the few lines of a person, or the whole log."""

from __future__ import annotations

import argparse
import contextlib
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

    if args.verbose or os.environ.get('MMKD_VERBOSE', '0') not in ('', '0'):
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
