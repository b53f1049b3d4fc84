"""Draw what each objective looks at: python tools/visualize.py CONFIG [--checkpoint STUDENT]

Writes one PNG for each image and objective: ground truth, then masks, attention or classes of every
level, teacher and student side by side. A plain config gives its images and annotations.
"""

import argparse

import mmkd  # noqa: F401  (registers the scope)
from mmkd.config import default_work_dir
from mmkd.engine.launch import add_common, add_teacher, check_data, read_config
from mmkd.errors.ending import plain_errors
from mmkd.visualization.audit import SPLITS, Audit


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config')
    parser.add_argument('--split', choices=SPLITS, default='train')
    parser.add_argument('--indices', nargs='+', type=int, default=[0, 1, 2], metavar='N')
    parser.add_argument('--checkpoint', help="the student's weights; untrained without")
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
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    config = read_config(args)
    check_data(config, args.split)
    point = tuple(args.point) if args.point else None
    audit = Audit(config, args.split, args.checkpoint, point=point)
    out = args.out or f'{default_work_dir(config.filename)}/pages'
    for path in audit.pages(args.indices, out):
        print(path)


if __name__ == '__main__':
    with plain_errors():
        main()
