"""Score the teacher and several students side by side.

    mmkd compare CONFIG --student plain=CKPT --student cwd=CKPT

The config's teacher and each student are scored on its test set with its own metric: one column
each, a row for every class and metric, and the differences to the first student.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmkd.commands.arguments import add_common, add_teacher, command_parser, execute


def parser() -> argparse.ArgumentParser:
    parser = command_parser('compare', __doc__)
    parser.add_argument('config')
    parser.add_argument(
        '--student', action='append', default=[], metavar='NAME=CHECKPOINT', help='may be repeated'
    )
    parser.add_argument('--out', help='also write the table: a .md, .csv or .json file')
    parser.add_argument('--work-dir', help='default: work_dirs/<config name>/compare')
    add_teacher(parser)
    add_common(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    from mmengine.dist import is_main_process

    from mmkd.analysis.comparison import compare, form_of, parse_students
    from mmkd.config import default_work_dir
    from mmkd.engine.launch import read_config

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


def main(argv: Sequence[str] | None = None) -> None:
    execute(parser(), run, argv)
