"""Score the teacher and several students side by side.

    mmkd compare CONFIG --student plain=CKPT --student cwd=CKPT

The config's teacher and each student are scored on its test set with its own metric: one column
each, a row for every metric, cost and class, and the differences to the first student.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmkd.commands.arguments import (
    add_common,
    add_teacher,
    add_verbose,
    command_parser,
    execute,
)


def parser() -> argparse.ArgumentParser:
    parser = command_parser('compare', __doc__)
    parser.add_argument('config', help='a config of mmkd')
    parser.add_argument(
        '--student', action='append', default=[], metavar='NAME=CHECKPOINT', help='may be repeated'
    )
    parser.add_argument('--out', help='also write the table: a .md, .csv or .json file')
    parser.add_argument('--per-class', action='store_true', help='show every class, however many')
    parser.add_argument(
        '--show', type=int, default=0, metavar='N', help='draw the predictions for N test images'
    )
    parser.add_argument(
        '--score-thr', type=float, default=0.3, help='lowest score that is drawn (%(default)s)'
    )
    parser.add_argument('--work-dir', help='default: work_dirs/<config name>/compare')
    add_teacher(parser)
    add_common(parser)
    add_verbose(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    from mmengine.dist import is_main_process

    from mmkd.analysis.comparison import compare, parse_students
    from mmkd.analysis.score_table import form_of, show
    from mmkd.commands.console import console
    from mmkd.config import default_work_dir
    from mmkd.engine.launch import read_config
    from mmkd.engine.writable import check_file
    from mmkd.options import check_number
    from mmkd.visualization.gallery import Gallery

    students, out = parse_students(args.student), Path(args.out) if args.out else None
    if out:  # refuse now what could not be written after the last test
        form = form_of(args.out)
        check_file(out, '--out')
    check_number('compare', '--show', args.show, 0, whole=True)
    check_number('compare', '--score-thr', args.score_thr, 0)
    with console(args):
        config = read_config(args)
        work_dir = Path(args.work_dir or f'{default_work_dir(config.filename)}/compare')
        gallery = Gallery(config, args.show, args.score_thr) if args.show else None
        found = compare(config, students, str(work_dir), *([gallery.add] if gallery else []))
    if not is_main_process():
        return
    show(found, args.per_class)
    if out:
        out.write_text(found.text(form))
    for path in gallery.save(work_dir / 'show') if gallery else []:
        print(path)


def main(argv: Sequence[str] | None = None) -> None:
    execute(parser(), run, argv)
