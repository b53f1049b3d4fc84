"""What packages say about themselves in every run, which nobody who trains can act on."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from importlib import import_module
from types import SimpleNamespace
from typing import Any, TextIO

#: by the packages' own words
SAID = (
    r'\bdeprecated\b',
    r'Could not import OneDL',
    r'faster_coco_eval is not installed',
    r'`save_param_scheduler` is True but',
    r'The prefix is not set in metric class',
    r'Setting \w+ environment variable for each process',
    r'Default ``avg_non_ignore`` is False',
)
_NOISE = re.compile('|'.join(SAID))
#: by pycocotools while it reads annotations, and by mmdet on being imported
_CHATTER = re.compile(
    r'loading annotations into memory\.\.\.|Done \(t=[\d.]+s\)|creating index\.\.\.|index created!'
    r'|Could not import OneDL\. Skipping OneDL datasets\.'
)
_KINDS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)


def is_noise(text: str, kind: type | None = None) -> bool:
    """Whether a line or a warning of this kind is left off the screen."""
    return bool(_NOISE.search(text)) or (kind is not None and issubclass(kind, _KINDS))


@contextlib.contextmanager
def without_noise() -> Iterator[None]:
    """Import what greets on being imported, and let no noise among the warnings that follow."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_rest(message: Any, category: type, *place: Any, **more: Any) -> None:
            if not is_noise(str(message), category):
                show(message, category, *place, **more)

        warnings.showwarning = show_rest
        with contextlib.redirect_stdout(io.StringIO()):
            import_module('mmkd.engine.launch')  # and with it mmdet and mmseg
        yield


@contextlib.contextmanager
def without_chatter() -> Iterator[None]:
    """Leave off standard output what pycocotools and mmdet print about themselves."""
    rest = _Rest(sys.stdout)
    try:
        with contextlib.redirect_stdout(rest):
            yield
    finally:
        rest.finish()


class _Rest(io.TextIOBase):
    """Text line by line into a stream, without the chatter."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.begun = stream, ''

    def write(self, text: str) -> int:
        *lines, self.begun = (self.begun + text).split('\n')
        for line in lines:
            if not _CHATTER.fullmatch(line):
                self.stream.write(f'{line}\n')
        return len(text)

    def flush(self) -> None:
        self.stream.flush()

    def finish(self) -> None:
        """Write a last line without an end."""
        self.stream.write(self.begun)


@contextlib.contextmanager
def without_shell_errors() -> Iterator[None]:
    """Hide what a shell says without a C compiler, whose version mmengine logs."""
    module: Any = import_module('mmengine.utils.dl_utils.collect_env')
    ask = functools.partial(subprocess.check_output, stderr=subprocess.DEVNULL)
    module.subprocess = SimpleNamespace(**(vars(subprocess) | {'check_output': ask}))
    try:
        yield
    finally:
        module.subprocess = subprocess
