"""The command ``mmkd``: one file per command, thin over the functions of the package.

The files here import nothing but the standard library until their arguments are understood, so that
``mmkd train --help`` does not wait for torch; see :func:`answer`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from mmkd.names import did_you_mean
from mmkd.started import command_words
from mmkd.version import __version__

#: in the order of a project: look, train, judge
COMMANDS = (
    'plan',
    'train',
    'test',
    'compare',
    'study',
    'sweep',
    'visualize',
    'benchmark',
    'export',
    'search_routes',
    'make',
    'demo',
    'environment',
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``mmkd COMMAND …``; the exit status is that of the command, 2 for an unknown one."""
    words = list(sys.argv[1:] if argv is None else argv)
    _module(words).main(words[1:])


def answer() -> None:
    """Let a command answer ``--help``, ``--version`` and wrong arguments before mmkd is imported.

    ``mmkd/__init__.py`` calls it before it imports torch and OpenMMLab, which takes seconds and may
    fail: ``mmkd environment`` is answered here as well, to say why. In any other program, and where
    the arguments of another command are right, it does nothing.

    Raises:
        SystemExit: the answer was printed.
    """
    words = command_words(sys.argv, sys.orig_argv)
    tool = words and sys.argv[0].endswith('.py')
    if words is None or (tool and words[0] not in COMMANDS):
        return  # another program, or a tool without a command
    command = _module(words)
    command.parser().parse_args(words[1:])
    if words[0] == 'environment':
        command.main(words[1:])


def _module(words: Sequence[str]) -> ModuleType:
    """The file of the typed command.

    Raises:
        SystemExit: help, the version, or a command that there is not.
    """
    asked = words[0] if words else '--help'
    if asked in ('-h', '--help'):
        print(_help())
    elif asked in ('-V', '--version'):
        print(f'mmkd {__version__}')
    elif asked.replace('-', '_') in COMMANDS:
        return import_module(f'mmkd.commands.{asked.replace("-", "_")}')
    else:
        hint = did_you_mean(asked, COMMANDS)
        print(f'mmkd has no command {asked!r}.{hint} `mmkd --help` lists all.', file=sys.stderr)
        raise SystemExit(2)
    raise SystemExit(0)


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f'  {name:{width}}  {_summary(name)}' for name in COMMANDS]
    return '\n'.join(
        [
            'usage: mmkd COMMAND ...',
            '',
            'Knowledge distillation for detectors and segmentors on OpenMMLab.',
            '',
            'commands:',
            *lines,
            '',
            '`mmkd COMMAND --help` lists its arguments, `mmkd --version` prints the version.',
        ]
    )


def _summary(name: str) -> str:
    """Summary of a command: the first sentence of its file."""
    return (_module([name]).__doc__ or '').split('.')[0].strip()
