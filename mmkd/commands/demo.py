"""Train and distil small networks on synthetic scenes, in a few minutes on a CPU.

    mmkd demo [--quick]

Draws a synthetic dataset, trains a teacher, a plain student and two distilled ones (FGFI; PKD with
a balanced weight) on identical schedules, and ends with the study's table and a picture. After an
interruption the next call continues.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmkd.commands.arguments import command_parser, execute


def parser() -> argparse.ArgumentParser:
    parser = command_parser('demo', __doc__)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/demo'), help='(%(default)s)')
    parser.add_argument('--quick', action='store_true', help='seconds; its numbers mean nothing')
    parser.add_argument('--seed', type=int, default=0, help='of all runs (%(default)s)')
    return parser


def run(args: argparse.Namespace) -> None:
    from mmkd.study.demo import Demo, say

    demo = Demo(args.out, args.quick, args.seed)
    try:
        demo.run()
    except KeyboardInterrupt:
        say('\nStopped. The same command continues from here.')
        raise SystemExit(130) from None
    except Exception:
        say(f'\nIt failed; the full output is in {args.out}/*/output.log.')
        raise


def main(argv: Sequence[str] | None = None) -> None:
    execute(parser(), run, argv)
