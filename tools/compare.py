"""Scores side by side: python tools/compare.py CONFIG --student plain=CKPT --student cwd=CKPT

The config's teacher and each student are scored on its test set with its own metric: one column
each, a row for every metric, cost and class, and the differences to the first student.
"""

import argparse
from pathlib import Path

from mmengine.dist import is_main_process

import mmkd  # noqa: F401  (registers the scope)
from mmkd.analysis.comparison import compare, parse_students
from mmkd.analysis.score_table import form_of, show
from mmkd.config import default_work_dir
from mmkd.engine.launch import add_common, add_teacher, read_config
from mmkd.errors.ending import plain_errors
from mmkd.options import check_number
from mmkd.quiet import quietly
from mmkd.visualization.compare import Gallery


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config')
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
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    students, out = parse_students(args.student), Path(args.out) if args.out else None
    if out:  # refuse now what could not be written after the last test
        form = form_of(args.out)
        out.parent.mkdir(parents=True, exist_ok=True)
    check_number('compare', '--show', args.show, 0, whole=True)
    check_number('compare', '--score-thr', args.score_thr, 0)
    config = read_config(args)
    work_dir = Path(args.work_dir or f'{default_work_dir(config.filename)}/compare')
    with quietly(work_dir / 'compare.log'):
        gallery = Gallery(config, args.show, args.score_thr) if args.show else None
        found = compare(config, students, str(work_dir), *([gallery.add] if gallery else []))
    if not is_main_process():
        return
    show(found, args.per_class)
    if out:
        out.write_text(found.text(form))
    for path in gallery.save(work_dir / 'show') if gallery else []:
        print(path)


if __name__ == '__main__':
    with plain_errors():
        main()
