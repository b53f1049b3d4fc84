"""Run a maker alone: it writes files that training needs.

    mmkd make TYPE KEY=VALUE ... [--out FOLDER]
    mmkd make TYPE ... --teacher CONFIG CHECKPOINT --student CONFIG CHECKPOINT

As a stage of a chain it is make=dict(type='mmkd.TYPE', KEY=VALUE, ...). Its options are those of
its docstring; `mmkd make list` prints all types.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmkd.commands.arguments import (
    MixedParser,
    OverrideAction,
    add_trust,
    add_verbose,
    command_parser,
    execute,
)

ROLES = ('teacher', 'student')


def parser() -> argparse.ArgumentParser:
    parser = command_parser('make', __doc__, MixedParser)
    parser.add_argument('type', help='such as GuidanceRoutes, or list')
    parser.add_argument('options', nargs='*', action=OverrideAction, metavar='KEY=VALUE')
    parser.add_argument('--out', help='default: work_dirs/<type>')
    for role in ROLES:
        parser.add_argument(
            f'--{role}', nargs=2, metavar=('CONFIG', 'CHECKPOINT'), help=f'what is given as {role}'
        )
    add_trust(parser)
    add_verbose(parser)
    parser.set_defaults(launcher='none')
    return parser


def run(args: argparse.Namespace) -> None:
    from mmengine.config import Config

    from mmkd.chain import Product, build_maker, run_maker
    from mmkd.checkpoint import local_file, trust_checkpoints, weights_of
    from mmkd.commands.console import console
    from mmkd.engine.writable import make_folder
    from mmkd.errors.origin import short
    from mmkd.registry import MAKERS

    if args.type == 'list':
        MAKERS.import_from_location()
        for name, kind in sorted(MAKERS.module_dict.items()):
            print(f'{name:20} {(kind.__doc__ or "").splitlines()[0]}')
        return
    if args.trust_checkpoint:
        trust_checkpoints()
    options = Config()
    options.merge_from_dict(args.options or {})  # dotted keys become mappings
    maker = build_maker(options.to_dict() | dict(type=args.type))
    out = args.out or f'work_dirs/{args.type.rpartition(".")[2]}'
    make_folder(out, '--out')
    given = {}
    for role in ROLES:
        if getattr(args, role):
            config, checkpoint = getattr(args, role)
            with local_file(weights_of(checkpoint, config)) as path:
                given[role] = Product(config, path, '')
    with console(args):
        product = run_maker(maker, given, out)
    print(short(product.checkpoint))


def main(argv: Sequence[str] | None = None) -> None:
    execute(parser(), run, argv)
