"""Write a student as an ONNX file, and print size, speed and scores before and after.

mmkd export CONFIG CHECKPOINT [--out FILE] [--size H W] [--part body] [--bits 8 4] [--score]

CONFIG is that of the run, or of the student alone (student.py in its work dir). Weights that were
trained with few bits (the edit FakeQuant) are stored as whole numbers with one step for each
channel, activations are rounded by QuantizeLinear. Needs pip install 'mmkd[onnx]'.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmkd.commands.arguments import add_common, add_verbose, command_parser, execute


def parser() -> argparse.ArgumentParser:
    parser = command_parser('export', __doc__)
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--out', default='student.onnx', help='default: student.onnx')
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='of an image; default: 256 256, with --score that of the first test image',
    )
    parser.add_argument(
        '--bits',
        type=int,
        nargs='+',
        default=(),
        metavar='N',
        help='also files whose weights are rounded to N bits after training, such as 8 4',
    )
    parser.add_argument(
        '--score', action='store_true', help='test the student and each file on the test set'
    )
    parser.add_argument(
        '--part',
        default='whole',
        help='body: backbone, neck and RPN alone, for networks with heads that do not export',
    )
    parser.add_argument('--float', action='store_true', help='leave weights in float32')
    add_common(parser)
    add_verbose(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    from mmengine.registry import init_default_scope

    from mmkd.checkpoint import local_file, weights_of
    from mmkd.commands.console import console
    from mmkd.config import load_config
    from mmkd.deployment.exporting import export
    from mmkd.engine.launch import apply_common

    size = tuple(args.size) if args.size else None
    how = (size, args.part, args.float, args.bits, args.score)
    with console(args), local_file(weights_of(args.checkpoint, args.config)) as path:
        config = apply_common(args, load_config(args.config))
        init_default_scope(config.get('default_scope') or 'mmengine')
        lines = export(config, path, args.out, *how)
    print(*lines, sep='\n')


def main(argv: Sequence[str] | None = None) -> None:
    execute(parser(), run, argv)
