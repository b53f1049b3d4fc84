"""The screen of a command: what a person needs; everything else goes to the log file."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from typing import Any, BinaryIO, cast

from mmengine.logging import MMLogger
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from mmkd.engine.console.noise import is_noise

_current: Screen | None = None


def current_screen() -> Screen:
    """The screen of the running command; outside commands a plain one beside the stock log."""
    return _current or Screen()


def adopt(logger: MMLogger) -> MMLogger:
    """Keep a logger's lines off the screen of the running command, except warnings and errors."""
    if _current is not None:
        _current.adopt(logger)
    return logger


class Screen:
    """While entered, standard output, loggers of mmengine and warnings are the log file's.

    On a terminal the progress is one line that changes in place, elsewhere a line each time. What a
    data worker says goes to the log file, too.

    Args:
        stream (TextIO): where lines go; None is standard output.
        speaks (bool): whether this process shows anything but errors: that of rank 0 does.
    """

    def __init__(self, stream: Any = None, speaks: bool = True) -> None:
        self.stream = stream or sys.stdout or io.StringIO()  # none where it was closed
        self.speaks = speaks
        self.console = Console(file=self.stream, force_terminal=_is_terminal(self.stream))
        self.live = self.console.is_terminal and not self.console.is_dumb_terminal
        self.progress: Progress | None = None
        self.files: list[logging.Handler] = []
        self.early: list[str] = []
        self.process = os.getpid()
        self.undo = contextlib.ExitStack()

    # ----------------------------------------------------------------------------------- saying

    def say(self, text: str, style: str | None = None) -> None:
        """Show a line; a terminal that is gone, or has other letters, stops no training."""
        if not self.speaks or os.getpid() != self.process:
            return
        with contextlib.suppress(OSError, ValueError):
            if self.live:
                self.console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
            else:
                encoding = getattr(self.stream, 'encoding', None) or 'utf-8'
                print(text.encode(encoding, 'replace').decode(encoding), file=self.stream)
                self.stream.flush()

    def show(self, done: int, total: int, text: str) -> None:
        """Show how far a run is."""
        if not self.live:
            self.say(text)
        elif self.speaks and os.getpid() == self.process:
            with contextlib.suppress(OSError, ValueError):
                if self.progress is None:
                    self.progress = self._bar()
                self.progress.update(
                    self.progress.task_ids[0], completed=done, total=total, text=text, refresh=True
                )

    def _bar(self) -> Progress:
        # Without a thread that refreshes it: data workers are forked, and its lock with them.
        line = TextColumn('{task.fields[text]}', table_column=Column(no_wrap=True))
        progress = Progress(
            BarColumn(bar_width=16),
            line,
            console=self.console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        progress.add_task('', text='', total=None)
        progress.start()
        return progress

    def clear(self) -> None:
        """Take the line of the progress away."""
        if self.progress is not None:
            with contextlib.suppress(OSError, ValueError):
                self.progress.stop()
            self.progress = None

    # -------------------------------------------------------------------------- keeping to a file

    def keep(self, text: str) -> None:
        """Write what was printed into the log file, which there is as soon as a Runner is."""
        if not self.speaks:
            return
        if not self.files:
            self.early.append(text)
        for handler in self.files:
            handler.handle(logging.LogRecord('stdout', logging.INFO, '', 0, text, None, None))

    def adopt(self, logger: MMLogger) -> None:
        """Take the place of a logger's own handler for the screen."""
        for place, handler in enumerate(logger.handlers):
            if type(handler) is logging.StreamHandler:
                logger.handlers[place] = _Lines(self, handler)
                self.undo.callback(logger.handlers.__setitem__, place, handler)
        self.files = [h for h in logger.handlers if isinstance(h, logging.FileHandler)]
        if self.files:
            early, self.early = self.early, []
            for text in early:
                self.keep(text)

    def __enter__(self) -> Screen:
        global _current
        _current = self
        self.undo.enter_context(warnings.catch_warnings())
        warnings.showwarning = self._warn  # type: ignore[assignment]
        kept = _Kept(self)
        self.undo.callback(kept.finish)
        text = io.TextIOWrapper(
            cast(BinaryIO, kept), 'utf-8', 'replace', newline='\n', write_through=True
        )
        self.undo.enter_context(contextlib.redirect_stdout(text))
        self.adopt(MMLogger.get_instance('mmengine'))  # which speaks before there is a Runner
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        """Give everything back, so that the stock log is shown."""
        global _current
        self.clear()
        self.undo.close()
        _current = None

    def _warn(self, message: Any, category: type, file: str, line: int, *_: Any) -> None:
        text = ' '.join(str(message).split())
        self.keep(f'{category.__name__} at {file}:{line}: {text}')
        if not is_noise(text, category):
            self.say(f'warning: {text}', 'yellow')


class _Lines(logging.Handler):
    """Warnings and errors as lines of the screen."""

    def __init__(self, screen: Screen, stock: logging.Handler) -> None:
        super().__init__(max(stock.level, logging.WARNING))
        self.filters = stock.filters
        self.screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.ERROR and not self.screen.speaks:
            print(f'error: {text}', file=sys.stderr)
        elif not is_noise(text):
            red = record.levelno >= logging.ERROR
            self.screen.say(f'{"error" if red else "warning"}: {text}', 'red' if red else 'yellow')


class _Kept(io.RawIOBase):
    """The bytes of standard output, line by line into the log file."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self.rest = b''

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        *lines, self.rest = (self.rest + bytes(data)).split(b'\n')
        for line in lines:
            self.screen.keep(line.decode('utf-8', 'replace'))
        return len(data)

    def finish(self) -> None:
        """Keep a last line without an end."""
        if self.rest:
            self.write(b'\n')

    def fileno(self) -> int:
        return self.screen.stream.fileno()


def _is_terminal(stream: Any) -> bool:
    with contextlib.suppress(ValueError):  # closed
        return bool(getattr(stream, 'isatty', bool)())
    return False
