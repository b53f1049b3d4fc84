"""Draw the masks, attention and predictions of each objective.

    mmkd visualize CONFIG [--checkpoint STUDENT]

Writes one PNG for each image and objective: ground truth, then masks, attention or classes of every
level, teacher and student side by side. A plain config gives its images and annotations.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmkd.commands.arguments import add_common, add_teacher, command_parser, execute
from mmkd.commands.console import without_log


def parser() -> argparse.ArgumentParser:
    parser = command_parser('visualize', __doc__)
    parser.add_argument('config', help='a config of mmkd, or a plain one')
    parser.add_argument(
        '--split', choices=['train', 'val'], default='train', help='images (%(default)s)'
    )
    parser.add_argument(
        '--indices', nargs='+', type=int, default=[0, 1, 2], metavar='N', help='of images (0 1 2)'
    )
    parser.add_argument('--checkpoint', help="the student's weights; default: untrained")
    parser.add_argument(
        '--point',
        nargs=2,
        type=float,
        metavar=('X', 'Y'),
        help="a pixel of the network's input: show what is similar to it (SKDPair)",
    )
    parser.add_argument('--out', help='folder; default: work_dirs/<config name>/pages')
    add_teacher(parser)
    add_common(parser)
    return parser


@without_log()
def run(args: argparse.Namespace) -> None:
    from mmkd.config import default_work_dir
    from mmkd.engine.launch import check_data, read_config
    from mmkd.engine.writable import make_folder
    from mmkd.visualization.viewer import Viewer

    config = read_config(args)
    check_data(config, args.split)
    out = args.out or f'{default_work_dir(config.filename)}/pages'
    make_folder(out, '--out')
    point = tuple(args.point) if args.point else None
    viewer = Viewer(config, args.split, args.checkpoint, point=point)
    for path in viewer.pages(args.indices, out):
        print(path)


def main(argv: Sequence[str] | None = None) -> None:
    execute(parser(), run, argv)
