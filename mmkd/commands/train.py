"""Train a student, distilled or plain.

mmkd train CONFIG [--resume]
mmkd train STOCK_CONFIG --teacher CONFIG CHECKPOINT --method FGFI
mmkd train CHAIN [--only STAGE]

--baseline trains a plain student, too, and compares them: a study of one method (mmkd study).
A config with stages=dict(…) is a chain of runs: finished stages are skipped, an interrupted one is
resumed.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

from mmkd.commands.arguments import (
    add_common,
    add_teacher,
    add_verbose,
    command_parser,
    execute,
)


def parser() -> argparse.ArgumentParser:
    parser = command_parser('train', __doc__)
    parser.add_argument('config', help='a config of mmkd, or a stock one with --teacher')
    parser.add_argument(
        '--work-dir',
        help='default: work_dirs/<config name>, with --teacher followed by _distil_<method>',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='continue from the newest complete checkpoint of the work dir, or from the one given',
    )
    parser.add_argument('--only', metavar='STAGE', help='of a chain: this stage alone')
    parser.add_argument(
        '--baseline', action='store_true', help='train a plain student, too, and compare both'
    )
    parser.add_argument('--amp', action='store_true', help='mixed precision (GPUs only)')
    add_teacher(parser)
    add_common(parser)
    add_verbose(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    from mmkd.chain import is_chain
    from mmkd.commands.chain import train_chain
    from mmkd.commands.console import console
    from mmkd.engine.launch import train

    with console(args) as hooks:
        if args.baseline:
            study_of_one(args)
            return
        config, work_dir = read(args)
        if is_chain(config):
            train_chain(args, config, work_dir, hooks)
            return
        if args.only:
            raise ValueError(f'--only {args.only} is for chains; {args.config} has no stages.')
        train(config, hooks=hooks(config), work_dir=work_dir, amp=args.amp)


def study_of_one(args: argparse.Namespace) -> None:
    """Teacher, plain student and one method, with the seed of ``--cfg-options``."""
    from mmkd.commands.study import study_of
    from mmkd.config import default_work_dir
    from mmkd.study import Study

    options = dict(args.cfg_options or {})
    entries: dict[str, Any] = dict(seeds=[options.pop('randomness.seed', 0)], options=options)
    entries['methods'] = [args.method if args.teacher else args.config]
    if args.teacher:
        path, checkpoint = args.teacher
        entries |= dict(student=args.config, teacher=dict(config=path, checkpoint=checkpoint))
    folder = args.work_dir or f'{default_work_dir(args.config)}_study'
    study_of(Study.read(entries), args, folder)


def read(args: argparse.Namespace) -> tuple[Any, str]:
    """The config of a run, and its work dir, where a wrapped stock config is written."""
    from mmkd.config import default_work_dir, load_config
    from mmkd.engine.launch import apply_common
    from mmkd.engine.wrapping import wrap_stock
    from mmkd.engine.writable import make_folder

    text = None
    if args.teacher:
        config, text = wrap_stock(args.config, *args.teacher, args.method)
    else:
        config = load_config(args.config)
    config = apply_common(args, config)
    if args.resume is not None:
        config.resume = True
        config.load_from = None if args.resume == 'auto' else args.resume
    work_dir = args.work_dir or config.get('work_dir') or default_work_dir(config.filename)
    if text:
        names = [one.rpartition('.')[2].lower() for one in args.method.split('+')]
        name = f'distil_{"_".join(names)}'
        work_dir = args.work_dir or f'{work_dir}_{name}'  # not that of the plain training
        make_folder(work_dir)
        with open(os.path.join(work_dir, f'{name}.py'), 'w') as file:
            file.write(text)
    return config, work_dir


def main(argv: Sequence[str] | None = None) -> None:
    execute(parser(), run, argv)
