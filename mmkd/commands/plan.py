"""Print the plan of a config, without data: taps, pairs, adapters, trained parameters.

    mmkd plan CONFIG [--step] [--suggest]
    mmkd plan STOCK_CONFIG --teacher CONFIG FILE [--method NAME]
    mmkd plan CHAIN

Prints the taps of student and teacher with their shapes, then the plan. With --teacher, CONFIG is a
stock config, and FILE may be 'random'; --method all lists the methods that fit this pair, with the
options that they need.

Of a chain, a config with stages=dict(…), it prints the plan of every stage with random weights.

--step then makes every check that training makes before its first step, runs one real training
batch, and prints each term, the ratio of its gradient to the task's at each tap, and its logged
counts. --suggest runs a few, and proposes weights with which
each term's gradient would have a share of the task's.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any

from mmkd.commands.arguments import add_common, add_teacher, command_parser, execute
from mmkd.commands.console import without_log


def parser() -> argparse.ArgumentParser:
    parser = command_parser('plan', __doc__)
    parser.add_argument('config', help='a config of mmkd, or a plain one to see its taps')
    parser.add_argument('--depth', type=int, default=2, help='levels of module names to list')
    parser.add_argument(
        '--random-teacher', action='store_true', help='do not load the checkpoint, only plan'
    )
    parser.add_argument('--step', action='store_true', help='also run one real batch')
    parser.add_argument(
        '--suggest',
        nargs='?',
        const=0.3,
        type=float,
        metavar='SHARE',
        help="propose weights: gradients at this share of the task's (0.3)",
    )
    parser.add_argument(
        '--checkpoint', help="with --step: the student's weights; default: as training starts"
    )
    add_teacher(parser, 'all', ', or all')
    add_common(parser)
    return parser


@without_log()
def run(args: argparse.Namespace) -> None:
    from mmengine.registry import init_default_scope

    from mmkd.chain import is_chain
    from mmkd.commands.chain import plan_chain
    from mmkd.config import distils
    from mmkd.engine.launch import check_model, read_config
    from mmkd.options import check_number
    from mmkd.teacher import build_model

    check_number('plan', '--depth', args.depth, 1, whole=True)
    check_number('plan', '--suggest', args.suggest, above=0, optional=True)
    if args.teacher and args.method == 'all':
        show_fits(args)
        return
    config = read_config(args)
    if is_chain(config):
        plan_chain(args, config)
        return
    check_model(config)
    init_default_scope(config.get('default_scope') or 'mmengine')
    if args.suggest is not None and not distils(config.model):
        raise ValueError('--suggest needs a distillation config, or --teacher and --method.')
    if args.step and not distils(config.model):
        raise ValueError('--step needs a distillation config, or --teacher and --method.')
    if distils(config.model):
        show_plan(config, args)
    else:
        model = build_model(config.model).eval()
        check_files(config, args, model)
        show('model', model, args.depth)


def show_plan(config: Any, args: argparse.Namespace) -> None:
    """The taps of student and teachers, the plan, and one batch if asked for."""
    from mmkd.analysis.rehearsal import rehearse
    from mmkd.registry import MODELS
    from mmkd.teachers.untrained import untrain

    def built(distiller: Any) -> None:
        show('student', distiller.student, args.depth)
        for name, teacher in distiller.teachers.items():
            show(name, teacher.model, args.depth)
        print(f'\n{distiller.plan}')

    if args.random_teacher:
        untrain(config.model)
    if args.step or args.suggest is not None:
        rehearse(config, built, partial(show_batches, config, args))
    else:
        model = MODELS.build(config.model)
        check_files(config, args, model)
        built(model)


def check_files(config: Any, args: argparse.Namespace, model: Any) -> None:
    """The files that training would start from, unless a plan without any is asked for."""
    from mmkd.checkpoint import check_start, check_starts

    if not args.random_teacher:
        check_start('load_from', config.get('load_from'))
        check_starts(model)


def show_batches(config: Any, args: argparse.Namespace, model: Any, loader: Any) -> None:
    """What the first batch gives, and the weights that a few of them suggest."""
    from mmkd.analysis.first_batch import report_step
    from mmkd.analysis.suggest import report, suggest
    from mmkd.plan.recording import load_student

    if args.checkpoint:
        load_student(model, args.checkpoint)
    if args.step:
        print(f'\nfirst batch\n{report_step(model, next(iter(loader)))}')
    if args.suggest is not None:
        found = suggest(model, loader, config.model.objectives, args.suggest)
        print(f'\nsuggested weights\n{report(found)}')


def show_fits(args: argparse.Namespace) -> None:
    """The methods that fit a pair."""
    from mmengine.registry import init_default_scope

    from mmkd.analysis.fits import Pair, table
    from mmkd.config import load_config
    from mmkd.engine.launch import apply_common
    from mmkd.teacher import Teacher, build_model

    if args.step or args.suggest is not None:
        raise ValueError('--step runs one method: name it with --method.')
    config = apply_common(args, load_config(args.config))
    init_default_scope(config.get('default_scope') or 'mmengine')
    path, file = args.teacher
    teacher = Teacher(path, 'random' if args.random_teacher else file)
    print(table(list(Pair(build_model(config), teacher).fits())))


def show(title: str, model: Any, depth: int) -> None:
    from mmkd.plan.places import candidates

    print(f'\ntaps of the {title}, {type(model).__name__}')
    for name, levels in candidates(model, depth):
        print(f'  {name:40s} {", ".join(map(str, levels))}')


def main(argv: Sequence[str] | None = None) -> None:
    execute(parser(), run, argv)
