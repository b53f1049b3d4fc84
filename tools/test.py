"""Score a checkpoint: python tools/test.py CONFIG CHECKPOINT (a config of mmkd, or a plain one)"""

import argparse

import mmkd  # noqa: F401  (registers the scope)
from mmkd.config import load_config
from mmkd.engine.launch import add_common, apply_common, test
from mmkd.errors.ending import plain_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--work-dir')
    parser.add_argument(
        '--ignore-keys',
        nargs='+',
        default=[],
        metavar='REGEX',
        help='weights that may differ, as teacher.ignore_keys',
    )
    add_common(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    config = apply_common(args, load_config(args.config))
    test(config, args.checkpoint, work_dir=args.work_dir, ignore_keys=args.ignore_keys)


if __name__ == '__main__':
    with plain_errors():
        main()
