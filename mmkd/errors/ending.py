"""The end of a command: one line with the error, or with the command that continues."""

from __future__ import annotations

import contextlib
import hashlib
import os
import os.path as osp
import platform
import re
import select
import shlex
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmkd.errors.origin import Origin, circle_of, config_files, origin_of, short
from mmkd.errors.remedies import remedy
from mmkd.errors.sigterm import on_sigterm
from mmkd.started import typed

_STARTED = time.time()
_LONGEST = 15  # lines of a message that are printed
_folder: str | None = None


class Stopped(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, with a sentence on how to continue and the command's exit status."""

    def __init__(self, text: str, status: int = 130) -> None:
        super().__init__(text)
        self.status = status


def keep_tracebacks_in(folder: str) -> None:
    """Name the work dir, where tracebacks go as soon as it exists."""
    global _folder
    _folder = folder


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Let a command end with one message instead of a traceback.

    Messages of mmkd stand alone. Those of other packages come with the place in the code and what
    was being done, and the traceback goes to a file. ``MMKD_TRACEBACK=1`` shows it on the screen.
    The exit status is 1, after Ctrl-C 130 and after SIGTERM 143. A reader of the output that has
    left (``| head``) is no error: the command ends with 141, without a word.
    """
    try:
        with on_sigterm(_terminate):
            yield
    except KeyboardInterrupt as stop:
        if os.environ.get('MMKD_TRACEBACK'):
            raise
        raise SystemExit(_say_stopped(stop)) from None
    except Exception as error:
        if os.environ.get('MMKD_TRACEBACK'):
            raise
        if isinstance(error, BrokenPipeError) and _reader_has_left():
            raise SystemExit(128 + signal.SIGPIPE) from None
        interrupt = stop_behind(error)
        if interrupt is not None:
            raise SystemExit(_say_stopped(interrupt)) from None
        if _speaks_for_all():
            print(f'\nerror: {describe(error)}', file=sys.stderr)
        else:
            _write_traceback(error)
        raise SystemExit(1) from None


def _reader_has_left() -> bool:
    """Whether nobody reads standard output any more, as behind ``| head``; it is closed then."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        output = sys.stdout.fileno()
        watch = select.poll()
        watch.register(output, select.POLLOUT)
        if any(event & select.POLLERR for _, event in watch.poll(0)):
            os.dup2(os.open(os.devnull, os.O_WRONLY), output)  # what is buffered goes nowhere
            return True
    return False


def describe(error: BaseException) -> str:
    """The text that a command prints for an exception; never fails itself."""
    try:
        origin = origin_of(error)
        if origin.ours:
            return f'{origin.message}\n(MMKD_TRACEBACK=1 shows the traceback)'
        return _foreign(error, origin)
    except Exception:  # whatever is wrong with the exception, it is not to hide it
        text = traceback.format_exception_only(error)[-1].strip()
        return f'{text} ({_write_traceback(error)})'


def _foreign(error: BaseException, origin: Origin) -> str:
    circle = circle_of(config_files(origin.frames))
    if circle:
        return circle
    message = re.sub(
        r' Please check whether the value of `.+` is\s*correct or .+', '', origin.message
    )
    lines = message.splitlines() or ['']
    place = ', '.join(filter(None, (f'at {origin.where}' * bool(origin.where), origin.phase)))
    place = f'{place} ({_write_traceback(error)})'
    if len(lines) == 1:
        said = f': {message.rstrip(".")}' if message else ''
        text = f'{origin.kind}{said} {place}'
    else:
        more = [f'… and {len(lines) - _LONGEST} more lines'] * (len(lines) > _LONGEST)
        body = [f'  {line}' for line in (*lines[:_LONGEST], *more)]
        text = '\n'.join([f'{origin.kind} {place}:', *body])
    return '\n'.join(filter(None, (text, remedy(error, origin))))


def _write_traceback(error: BaseException) -> str:
    """Put the traceback into a file and name it."""
    rank = os.environ.get('RANK')
    who = f'rank{rank}' if rank else f'{os.getpid()}'
    name = f'{time.strftime("error_%Y%m%d_%H%M%S")}_{who}.txt'
    text = ''.join(traceback.format_exception(error))
    python = f'Python {platform.python_version()}, torch {_version("torch")}, '
    head = f'{shlex.join(sys.argv)}\n{python}mmengine {_version("mmengine")}\n\n'
    folders = [_folder] if _folder and osp.isdir(_folder) else []
    for folder in (*folders, tempfile.gettempdir(), '.'):
        path = osp.join(folder, name)
        with contextlib.suppress(OSError), open(path, 'w', encoding='utf-8') as file:
            file.write(head + text)
            return f'traceback in {short(path)}'
    return 'MMKD_TRACEBACK=1 shows the traceback'


def _version(module: str) -> str:
    return str(getattr(sys.modules.get(module), '__version__', 'not loaded'))


def _speaks_for_all() -> bool:
    """Whether this process is the first of its launch to end; the others stay silent."""
    if int(os.environ.get('WORLD_SIZE') or 1) == 1:
        return True
    launch = f'{os.getppid()} {os.environ.get("MASTER_ADDR")} {os.environ.get("MASTER_PORT")}'
    name = f'mmkd_{hashlib.sha256(launch.encode()).hexdigest()[:16]}'
    path = osp.join(tempfile.gettempdir(), name)
    try:
        if osp.exists(path) and osp.getmtime(path) < _STARTED - 60:  # of an earlier launch
            os.unlink(path)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    except OSError:
        pass
    return True


def stop_behind(error: BaseException | None) -> KeyboardInterrupt | None:
    """The Ctrl-C or SIGTERM that other code has answered with an error of its own.

    mmengine does so where it lays out the config, a second for each checkpoint.
    """
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if isinstance(error, KeyboardInterrupt):
            return error
        seen.append(error)
        error = error.__cause__ or error.__context__
    return None


def last_saved(work_dir: str) -> tuple[str, int] | None:
    """The checkpoint that a run in this folder wrote last, and when; None if there is none."""
    note = Path(work_dir, 'last_checkpoint')
    with contextlib.suppress(OSError, ValueError):
        # Neither a pipe, which would be waited for, nor a device.
        newest = note.read_text().strip() if note.is_file() else ''
        if osp.isfile(newest):
            return newest, note.stat().st_mtime_ns
    return None


def way_on(work_dir: str, argv: list[str], before: tuple[str, int] | None = None) -> str:
    """After a stopped training: the command that continues it, and from where.

    Args:
        before: :func:`last_saved` at the start of the run. What was there already is gone on from
            only by a run that did so itself.
    """
    given = os.environ.get('MMKD_COMMAND')
    words = given.split(' ') if given else typed(argv)
    rest, resumed = _without_resume(words)
    write = ' '.join if given else shlex.join
    newest = last_saved(work_dir)
    if newest and (newest != before or resumed == 'auto'):
        return f'Stopped. To go on from {short(newest[0])}: {write(rest)} --resume'
    return f'Stopped before a checkpoint was written. To start again: {write(words)}'


def _without_resume(words: list[str]) -> tuple[list[str], str | None]:
    """A command without ``--resume``, and what that named; ``'auto'`` if nothing."""
    for i, word in enumerate(words):
        option, equals, value = word.partition('=')
        if option == '--resume':
            named = bool(words[i + 1 : i + 2]) and not words[i + 1].startswith('-')
            file = value if equals else words[i + 1] if named else 'auto'
            return [*words[:i], *words[i + 1 + (named and not equals) :]], file
    return words, None


def _terminate(number: int, frame: Any) -> None:
    raise Stopped('Stopped by SIGTERM.', 128 + number)


def _say_stopped(stop: KeyboardInterrupt) -> int:
    """Print how to continue; returns the exit status."""
    for number in (signal.SIGINT, signal.SIGTERM):  # torchrun sends a second one
        with contextlib.suppress(ValueError):
            signal.signal(number, signal.SIG_IGN)
    if _speaks_for_all():
        print(f'\n{str(stop) or "Stopped."}', file=sys.stderr)
    return getattr(stop, 'status', 130)
