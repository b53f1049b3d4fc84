"""Train teacher, plain and distilled students over seeds, and compare them.

    mmkd study STUDY.py [--jobs 2]
    mmkd study STUDENT --teacher CONFIG [CHECKPOINT] --methods FGFI,CWD --seeds 0 1
    mmkd study DISTILLED [DISTILLED ...] --seeds 0 1

A study config has methods=[…]; see docs/study.md. Writes report.md, report.csv and report.png into
the work dir. Finished runs are kept, interrupted ones resumed: after an interruption run it again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from mmkd.commands.arguments import (
    OverrideAction,
    add_common,
    add_verbose,
    command_parser,
    execute,
)


def parser() -> argparse.ArgumentParser:
    parser = command_parser('study', __doc__)
    parser.add_argument(
        'config', nargs='+', help='a study, a student with --teacher, or distilled configs'
    )
    parser.add_argument(
        '--teacher',
        nargs='+',
        metavar=('CONFIG', 'CHECKPOINT'),
        help='of a student; without a checkpoint it is trained',
    )
    parser.add_argument(
        '--methods',
        help="names such as FGFI,CWD or KD+AT, or 'all' that fit; of a study with methods: which "
        'of them to train now',
    )
    parser.add_argument('--seeds', nargs='+', type=int, help='of the students (0)')
    parser.add_argument(
        '--baseline', action=argparse.BooleanOptionalAction, help='train plain students, too'
    )
    parser.add_argument(
        '--grid',
        nargs='+',
        action=OverrideAction,
        metavar='KEY=V1,V2',
        help='one row for each value',
    )
    parser.add_argument('--search', type=int, metavar='EPOCHS', help='short runs choose methods')
    parser.add_argument('--keep', type=int, help='with --search: methods that are left (1)')
    parser.add_argument('--metric', help='name in the log; default: AP, mIoU or top-1')
    parser.add_argument('--jobs', type=int, default=1, help='processes at a time (%(default)s)')
    parser.add_argument('--work-dir', help='default: work_dirs/<config name>_study')
    parser.add_argument(
        '--resume', action='store_true', help='not needed: a study always continues'
    )
    parser.add_argument('--amp', action='store_true', help='mixed precision (GPUs only)')
    add_common(parser)
    add_verbose(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    from mmkd.commands.console import console
    from mmkd.study import Study

    entries, name = read(args)
    with console(args):
        study_of(Study.read(entries), args, args.work_dir or entries.get('work_dir') or name)


def study_of(study: Any, args: argparse.Namespace, work_dir: str) -> None:
    """Run a study, and end with status 1 if a run of it failed.

    Raises:
        Stopped: Ctrl-C or SIGTERM, with the command that continues.
    """
    import shlex
    import sys

    from mmkd.engine.console.screen import current_screen
    from mmkd.errors.ending import Stopped
    from mmkd.options import check_number
    from mmkd.started import typed
    from mmkd.study import Project
    from mmkd.study.processes import start
    from mmkd.study.report import screen

    jobs = check_number('study', '--jobs', getattr(args, 'jobs', 1), 1, whole=True)
    if args.launcher != 'none':
        raise ValueError('--launcher is for one run: a study starts its own, --jobs N at a time.')
    command, say = shlex.join(typed(sys.argv)), current_screen().say
    project = Project(study, work_dir, start, say, jobs, command)
    project.amp, project.trust = args.amp, args.trust_checkpoint
    try:
        failed = project.run()
    except KeyboardInterrupt as stop:
        text = f'Stopped. To go on: {command}'
        raise Stopped(text, getattr(stop, 'status', 130)) from None
    for pair in project.results:
        say('\n'.join(['', *screen(pair)]))
    say(f'\n{work_dir}/report.md, report.csv, report.png')
    if failed:
        say(f'{len(failed)} runs failed: {", ".join(failed)}')
        raise SystemExit(1)


def read(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The entries of a study, from its config and the arguments, and its default work dir."""
    from mmkd.config import default_work_dir, distils, load_config

    first = load_config(args.config[0])
    folder = default_work_dir(args.config[0])
    if first.get('model') is None:
        entries = first._cfg_dict.to_dict()
        if len(args.config) > 1 or args.teacher:
            raise ValueError(
                f'{args.config[0]} is a study, which names its networks itself: leave out '
                '--teacher and further configs.'
            )
        if args.methods:
            entries['only' if entries.get('methods') else 'methods'] = _names(args.methods)
        return _with_arguments(entries, args), folder
    if distils(first.model):
        if args.teacher or args.methods:
            raise ValueError(
                f'{args.config[0]} distils already; --teacher and --methods are for a plain '
                'student.'
            )
        entries = dict(methods=args.config)
    else:
        entries = of_student(args)
    return _with_arguments(entries, args), f'{folder}_study'


def _with_arguments(entries: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Entries of a study, and over them what the command line says."""
    given = dict(seeds=args.seeds, baseline=args.baseline, metric=args.metric, grid=args.grid)
    entries |= {key: value for key, value in given.items() if value is not None}
    if args.search is not None or args.keep is not None:
        asked = dict(epochs=args.search, keep=args.keep)
        own = {key: value for key, value in asked.items() if value is not None}
        entries['search'] = dict(entries.get('search') or {}, **own)
    entries['options'] = {**(entries.get('options') or {}), **(args.cfg_options or {})}
    return entries


def of_student(args: argparse.Namespace) -> dict[str, Any]:
    """A plain student, a teacher and methods by name."""
    if not args.teacher or not args.methods or len(args.config) > 1 or len(args.teacher) > 2:
        raise ValueError(
            f'{args.config[0]} is a plain student: name one of them, --teacher CONFIG '
            '[CHECKPOINT], and --methods FGFI,CWD.'
        )
    teacher = dict(zip(('config', 'checkpoint'), args.teacher, strict=False))
    return dict(student=args.config[0], teacher=teacher, methods=_names(args.methods))


def _names(given: str) -> list[str]:
    return [name for name in (part.strip() for part in given.split(',')) if name]


def main(argv: Sequence[str] | None = None) -> None:
    execute(parser(), run, argv)
