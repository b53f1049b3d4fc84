"""Scores side by side: python tools/compare.py CONFIG --student plain=CKPT --student cwd=CKPT

The config's teacher and each student are scored on its test set with its own metric: one column
each, a row for every class and metric, and the differences to the first student.
"""

import argparse
from pathlib import Path

import mmkd  # noqa: F401  (registers the scope)
from mmkd.config import load_config
from mmkd.engine.launch import add_common, apply_common, default_work_dir, plain_errors
from mmkd.evaluation.comparison import compare


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config')
    parser.add_argument(
        '--student', action='append', default=[], metavar='NAME=CHECKPOINT', help='may be repeated'
    )
    parser.add_argument('--out', help='also write the table: a .md, .csv or .json file')
    parser.add_argument('--work-dir', help='default: work_dirs/<config name>/compare')
    add_common(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    wrong = [entry for entry in args.student if '=' not in entry]
    if wrong:
        raise ValueError(f'--student takes NAME=CHECKPOINT, found {wrong[0]!r}.')
    if args.out and Path(args.out).suffix not in ('.md', '.csv', '.json'):
        raise ValueError(f'--out takes a .md, .csv or .json file, found {args.out!r}.')
    config = apply_common(args, load_config(args.config))
    work_dir = args.work_dir or f'{default_work_dir(config.filename)}/compare'
    students = dict(entry.split('=', 1) for entry in args.student)
    found = compare(config, students, work_dir)
    print(found.text())
    if args.out:
        Path(args.out).write_text(found.text(Path(args.out).suffix))


if __name__ == '__main__':
    with plain_errors():
        main()
