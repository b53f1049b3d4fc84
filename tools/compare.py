"""Scores side by side: python tools/compare.py CONFIG --student plain=CKPT --student cwd=CKPT

The config's teacher and each student are scored on its test set with its own metric: one column
each, a row for every class and metric, and the differences to the first student.
"""

import argparse
from pathlib import Path

from mmengine.dist import is_main_process

import mmkd  # noqa: F401  (registers the scope)
from mmkd.analysis.comparison import compare, form_of, parse_students
from mmkd.config import default_work_dir
from mmkd.engine.launch import add_common, add_teacher, read_config
from mmkd.errors.ending import plain_errors


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
    add_teacher(parser)
    add_common(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    students, out = parse_students(args.student), Path(args.out) if args.out else None
    if out:  # refuse now what could not be written after the last test
        form = form_of(args.out)
        out.parent.mkdir(parents=True, exist_ok=True)
    config = read_config(args)
    work_dir = args.work_dir or f'{default_work_dir(config.filename)}/compare'
    found = compare(config, students, work_dir)
    if is_main_process():
        print(found.text())
        if out:
            out.write_text(found.text(form))


if __name__ == '__main__':
    with plain_errors():
        main()
