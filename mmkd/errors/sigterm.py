"""SIGTERM ends a command with a sentence, and the processes that it forks at once."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

#: one entry for each handler in force
_handlers: list[Callable] = []
#: signals that were blocked before the fork that is under way
_masks: list[Any] = []


@contextlib.contextmanager
def on_sigterm(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Call ``handler`` for SIGTERM in this process; a forked one has the default instead.

    Python loses a signal that reaches a forked process before it is set up there. Whoever ends a
    pool of processes, as mmdet's evaluation for VOC does, would wait for that one for ever, which
    without a handler cannot happen. So SIGTERM is held back while a process is forked.
    """
    try:
        before = signal.signal(signal.SIGTERM, handler)
    except ValueError:  # not in the main thread
        yield
        return
    _handlers.append(handler)
    try:
        yield
    finally:
        _handlers.remove(handler)
        if signal.getsignal(signal.SIGTERM) is handler:
            signal.signal(signal.SIGTERM, before)


def _hold_back() -> None:
    if _handlers:
        _masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}))


def _let_through() -> None:
    if _masks:
        signal.pthread_sigmask(signal.SIG_SETMASK, _masks.pop())


def _in_child() -> None:
    if _handlers:
        _handlers.clear()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _let_through()


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(before=_hold_back, after_in_parent=_let_through, after_in_child=_in_child)
