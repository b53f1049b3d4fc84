"""Files that are complete whenever they exist."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.logging import print_log


@contextmanager
def atomic_file(path: str) -> Iterator[str]:
    """A temporary name in the same folder; the finished file is renamed to ``path`` atomically.

    The ``.part`` file is removed when writing fails, and left behind only by a killed process. A
    directory that has the name of the file is renamed.

    Raises:
        OSError: the file cannot be written, e.g. because the disk is full.
    """
    part = f'{path}.{os.getpid()}.part'
    try:
        yield part
        with open(part, 'rb+') as file:
            os.fsync(file.fileno())
        _make_way(path)
        os.replace(part, path)
    except BaseException:
        if os.path.exists(part):
            os.remove(part)
        raise
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:  # the new name itself must survive a power cut
        os.fsync(folder)
    finally:
        os.close(folder)


def _make_way(path: str) -> None:
    """Rename a directory that lies where a file is to go: no file can replace it."""
    if not os.path.isdir(path) or os.path.islink(path):
        return
    aside = f'{path}.{os.getpid()}.directory'
    os.rename(path, aside)
    print_log(
        f'{path} was a directory; it is now called {os.path.basename(aside)}.',
        logger='current',
        level=logging.WARNING,
    )
