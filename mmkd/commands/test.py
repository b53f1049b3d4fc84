"""Score a checkpoint on the test set.

mmkd test CONFIG CHECKPOINT    (a config of mmkd, or a plain one)
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmkd.commands.arguments import add_common, add_verbose, command_parser, execute


def parser() -> argparse.ArgumentParser:
    parser = command_parser('test', __doc__)
    parser.add_argument('config', help='a config of mmkd, or a plain one')
    parser.add_argument('checkpoint', help='a file, an address, or the work dir of a run')
    parser.add_argument('--work-dir')
    parser.add_argument(
        '--who',
        default='student',
        metavar='NETWORK',
        help='peers.NAME scores a peer in the checkpoint instead of the student',
    )
    parser.add_argument(
        '--ignore-keys',
        nargs='+',
        default=[],
        metavar='REGEX',
        help='weights that may differ, as teacher.ignore_keys',
    )
    add_common(parser)
    add_verbose(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    from mmkd.commands.console import console
    from mmkd.config import load_config
    from mmkd.engine.launch import apply_common, test

    with console(args) as hooks:
        config = apply_common(args, load_config(args.config))
        test(
            config,
            args.checkpoint,
            hooks=hooks(config),
            work_dir=args.work_dir,
            ignore_keys=args.ignore_keys,
            who=args.who,
        )


def main(argv: Sequence[str] | None = None) -> None:
    execute(parser(), run, argv)
