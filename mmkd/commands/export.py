"""Write a student as an ONNX file, and print its size and speed before and after.

mmkd export CONFIG CHECKPOINT [--out FILE] [--size H W] [--part body]

CONFIG is that of the run, or of the student alone (student.py in its work dir). Weights that were
trained with few bits (the edit FakeQuant) are stored as whole numbers with one step for each
channel, activations are rounded by QuantizeLinear. Needs pip install 'mmkd[onnx]'.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmkd.commands.arguments import add_common, command_parser, execute
from mmkd.commands.console import without_log


def parser() -> argparse.ArgumentParser:
    parser = command_parser('export', __doc__)
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--out', default='student.onnx', help='default: student.onnx')
    parser.add_argument(
        '--size', type=int, nargs=2, default=(256, 256), metavar=('H', 'W'), help='of an image'
    )
    parser.add_argument(
        '--part',
        default='whole',
        help='body: backbone, neck and RPN alone, for networks with heads that do not export',
    )
    parser.add_argument('--float', action='store_true', help='leave weights in float32')
    add_common(parser)
    return parser


@without_log()
def run(args: argparse.Namespace) -> None:
    from mmengine.registry import init_default_scope

    from mmkd.checkpoint import local_file, weights_of
    from mmkd.config import load_config
    from mmkd.deployment.exporting import export
    from mmkd.engine.launch import apply_common

    config = apply_common(args, load_config(args.config))
    init_default_scope(config.get('default_scope') or 'mmengine')
    with local_file(weights_of(args.checkpoint, args.config)) as path:
        for line in export(config, path, args.out, tuple(args.size), args.part, args.float):
            print(line)


def main(argv: Sequence[str] | None = None) -> None:
    execute(parser(), run, argv)
