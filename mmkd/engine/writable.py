"""Folders and files that a command is going to write, tried before its work begins."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def make_folder(path: str | Path, option: str = '--work-dir') -> None:
    """Make a folder where there is none; OSError where no file can be written into it.

    Args:
        path (str | Path): of the folder.
        option (str): where another one can be named, for the message.
    """
    try:
        os.makedirs(path, exist_ok=True)
        with tempfile.TemporaryFile(dir=str(path)):
            pass
    except OSError as error:
        reason = error.strerror
        if isinstance(error, (FileExistsError, NotADirectoryError)):
            reason = f'{error.filename} is no folder'
        raise OSError(
            f'{option}: nothing can be written into {path} ({reason}). Name another folder.'
        ) from error


def check_file(path: str | Path, option: str) -> None:
    """Make the folder of a file; OSError where the file cannot be written, which it is not yet."""
    make_folder(Path(path).parent, option)
    if not os.path.exists(path):
        return
    try:
        with open(path, 'a'):
            pass
    except OSError as error:
        raise OSError(
            f'{option}: {path} cannot be written ({error.strerror}). Name another file.'
        ) from error
