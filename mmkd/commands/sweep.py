"""Compare finished runs that differ in one number, such as the weight of a term.

    mmkd sweep WORK_DIR WORK_DIR ... --key model.objectives.NAME.weight [--baseline WORK_DIR]

Prints the score of each value and seed, mean and spread over the values, and the gain of the mean.
--by-density also scores validation images with few, some and many objects.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmkd.commands.arguments import add_verbose, command_parser, execute


def parser() -> argparse.ArgumentParser:
    parser = command_parser('sweep', __doc__)
    parser.add_argument('runs', nargs='+', metavar='WORK_DIR')
    parser.add_argument(
        '--key', required=True, help='what differs, such as model.objectives.hdkd.weight'
    )
    parser.add_argument(
        '--baseline', nargs='+', default=[], metavar='WORK_DIR', help='runs without distillation'
    )
    parser.add_argument('--metric', help='name in the log; default: AP, mIoU or top-1')
    parser.add_argument(
        '--by-density', action='store_true', help='also on few, some and many objects'
    )
    parser.add_argument('--out', help='also write the table, a .md file')
    parser.add_argument('--work-dir', default='work_dirs/sweep', help='for the logs of the tests')
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='also load files that contain code (only from a source you trust)',
    )
    add_verbose(parser)
    parser.set_defaults(launcher='none')
    return parser


def run(args: argparse.Namespace) -> None:
    from mmkd.analysis.sweep import add_densities, read_sweep
    from mmkd.checkpoint import trust_checkpoints
    from mmkd.commands.console import console
    from mmkd.engine.writable import check_file

    if args.out:
        check_file(Path(args.out), '--out')
    if args.trust_checkpoint:
        trust_checkpoints()
    with console(args):
        found = read_sweep(args.runs, args.key, args.baseline, args.metric)
        if args.by_density:
            add_densities(found, args.work_dir)
    text = '\n'.join(found.lines())
    print(text)
    if args.out:
        Path(args.out).write_text(text + '\n')


def main(argv: Sequence[str] | None = None) -> None:
    execute(parser(), run, argv)
