"""A lock on the work dir while a run or study writes into it; a second one is told of it."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Iterator
from logging import WARNING

from mmengine.logging import print_log

#: in the work dir; the operating system takes the lock off when the process ends, however it does
LOCK = '.running'


@contextlib.contextmanager
def occupied(folder: str) -> Iterator[None]:
    """Hold the lock of a folder; where another process has it, warn and go on without."""
    with locked(folder) as other:
        if other:
            print_log(
                f'another run is training in {folder}: {other}. Both write files of the same '
                'names, so neither can be resumed. Stop one, or give it another --work-dir.',
                'current',
                WARNING,
            )
        yield


@contextlib.contextmanager
def locked(folder: str) -> Iterator[str]:
    """Try to hold the lock of a folder, and give who else has it; ``''`` where nobody has."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield ''
        return
    path = os.path.join(folder, LOCK)
    with contextlib.ExitStack() as stack:
        held, other = False, ''
        with contextlib.suppress(OSError):  # a file system without locks
            file = stack.enter_context(open(path, 'a+', encoding='utf-8'))
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = True
            except BlockingIOError:
                file.seek(0)
                other = file.read().strip() or 'unknown'
            if held:
                file.truncate(0)
                file.write(
                    f'process {os.getpid()} on {platform.node()}, since '
                    f'{time.strftime("%Y-%m-%d %H:%M:%S")}\n'
                )
                file.flush()
        try:
            yield other
        finally:
            if held:
                with contextlib.suppress(OSError):
                    os.unlink(path)
