"""What other packages print goes to a file; the screen is for the person in front of it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def quietly(path: str | Path) -> Iterator[None]:
    """Append to a file what Python code prints meanwhile, warnings and log lines included.

    :func:`say` still reaches the screen.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('a') as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        yield


def say(text: str = '') -> None:
    """Print for the reader, whatever is sent elsewhere."""
    print(text, file=sys.__stdout__, flush=True)
