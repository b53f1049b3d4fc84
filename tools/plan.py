"""Dry run without data: python tools/plan.py CONFIG [--teacher CONFIG FILE --method NAME]

Prints where the student and the teacher can be tapped and with which shapes, then what the config
taps, pairs, adapts and trains. With --teacher, CONFIG is a stock config, and FILE may be 'random';
--method all answers which methods fit this pair, as they are or with which options.

--step then runs one real training batch and prints each term, its gradient at each tap over that of
the task, and what it counts.
"""

import argparse

from mmengine.registry import init_default_scope

import mmkd  # noqa: F401  (registers the scope)
from mmkd.analysis.first_batch import report_step
from mmkd.analysis.fits import Pair, table
from mmkd.config import distils, load_config
from mmkd.engine.launch import (
    add_common,
    add_teacher,
    apply_common,
    check_data,
    read_config,
)
from mmkd.errors.ending import plain_errors
from mmkd.plan.places import candidates
from mmkd.registry import MODELS
from mmkd.teacher import Teacher, build_model


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='a config of mmkd, or a plain one to see its taps')
    parser.add_argument('--depth', type=int, default=2, help='levels of module names to list')
    parser.add_argument(
        '--random-teacher', action='store_true', help='do not load the checkpoint, only plan'
    )
    parser.add_argument('--step', action='store_true', help='also run one real batch')
    parser.add_argument('--checkpoint', help='with --step: the student; untrained without')
    add_teacher(parser, 'all', ', or all')
    add_common(parser)
    return parser.parse_args()


def show(title: str, model, depth: int) -> None:
    print(f'\ntaps of the {title}, {type(model).__name__}')
    for name, levels in candidates(model, depth):
        print(f'  {name:40s} {", ".join(map(str, levels))}')


def show_fits(args: argparse.Namespace) -> None:
    """What fits a pair, method by method."""
    if args.step:
        raise ValueError('--step runs one method: name it with --method.')
    config = apply_common(args, load_config(args.config))
    init_default_scope(config.get('default_scope') or 'mmengine')
    path, file = args.teacher
    teacher = Teacher(path, 'random' if args.random_teacher else file)
    print(table(list(Pair(build_model(config), teacher).fits())))


def main() -> None:
    args = parse_args()
    if args.teacher and args.method == 'all':
        show_fits(args)
        return
    config = read_config(args)
    init_default_scope(config.get('default_scope') or 'mmengine')
    if not distils(config.model):
        show('model', build_model(config.model).eval(), args.depth)
        return
    if args.random_teacher:
        teacher = config.model.teacher
        for entry in [teacher] if 'config' in teacher else teacher.values():
            entry.checkpoint = 'random'
    distiller = MODELS.build(config.model)
    show('student', distiller.student, args.depth)
    for name, teacher in distiller.teachers.items():
        show(name, teacher.model, args.depth)
    print(f'\n{distiller.plan}')
    if args.step:
        check_data(config, 'train')
        print(f'\nfirst batch\n{report_step(config, args.checkpoint)}')


if __name__ == '__main__':
    with plain_errors():
        main()
