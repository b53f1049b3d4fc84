"""Arguments that commands share, and how a command runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from mmkd.started import prefix_of

Parser = argparse.ArgumentParser


class MixedParser(argparse.ArgumentParser):
    """Takes options between the values of the last positional argument, too."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        return self.parse_intermixed_args(args, namespace)


def command_parser(name: str, text: str, kind: type[Parser] = Parser) -> Parser:
    """A parser whose help shows the docstring of the command's file unchanged."""
    early = ['python', '-m', 'mmkd'] * (sys.argv[0] == '-m')  # Python still imports the package
    prefix = early or prefix_of(sys.argv[0])
    return kind(
        prog=' '.join([*prefix, name]) if prefix else None,
        description=text.strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_common(parser: Parser) -> None:
    """Arguments of every command that reads a config; `apply_common` honours them."""
    parser.add_argument('--cfg-options', nargs='+', action=OverrideAction, metavar='KEY=VALUE')
    add_trust(parser)
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def add_trust(parser: Parser) -> None:
    """The switch for checkpoints that contain code."""
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='also load files that contain code (only from a source you trust)',
    )


def add_teacher(parser: Parser, method: str = 'FGFI', more: str = '') -> None:
    """Arguments that distil a stock config, without any config of ours."""
    parser.add_argument(
        '--teacher',
        nargs=2,
        metavar=('CONFIG', 'CHECKPOINT'),
        help='of a plain student config; CHECKPOINT may be released, last, best or random',
    )
    text = f'with --teacher: a method, or several such as KD+AT{more} (default: {method})'
    parser.add_argument('--method', default=method, help=text)


def add_verbose(parser: Parser) -> None:
    """The switch between a console for a person and the whole log."""
    parser.add_argument(
        '--verbose',
        action='store_true',
        help='show the whole log on the screen, which otherwise goes to its file alone '
        '(also MMKD_VERBOSE=1, or verbose=True in the config)',
    )


class OverrideAction(argparse.Action):
    """mmengine's, with a usage error instead of a traceback for text without ``KEY=VALUE``."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        try:
            from mmengine.config import DictAction
        except ImportError:  # which the check of the environment is about to explain
            return
        name = self.option_strings[0] if self.option_strings else parser.prog
        for text in values:
            key, equals, _ = text.partition('=')
            if not key or not equals:
                parser.error(f'{name} takes KEY=VALUE, found {text!r}')
        try:
            DictAction(self.option_strings, self.dest, nargs='+')(parser, namespace, values)
        except (AssertionError, ValueError) as error:
            parser.error(f'{name}: {error}')


def execute(
    parser: Parser, run: Callable[[argparse.Namespace], Any], argv: Sequence[str] | None
) -> None:
    """Run a command: it ends with a message of one line, or without any."""
    args = parser.parse_args(argv)
    from mmkd.engine.console.noise import without_noise
    from mmkd.errors.ending import plain_errors

    with plain_errors(), without_noise():
        run(args)
