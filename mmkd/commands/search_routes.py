"""Find the best guidance route.

    mmkd search_routes CONFIG [--epochs 1] [--hold-out 0.1]

Works for a config with a GuidanceRoute. For each of its routes a short probe is trained, from the
same weights on the same batches; the better half is trained twice as long, until one is left.
Losses are those on a held-out part of the training set. After an interruption run it again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from mmkd.commands.arguments import add_common, add_verbose, command_parser, execute


def parser() -> argparse.ArgumentParser:
    parser = command_parser('search_routes', __doc__)
    parser.add_argument('config')
    parser.add_argument('--epochs', type=int, default=1, help='of the first round')
    parser.add_argument('--hold-out', type=float, default=0.1, help='share of the training set')
    parser.add_argument('--seed', type=int, help="default: the config's, else 0")
    parser.add_argument(
        '--rank', choices=['joint', 'task'], default='joint', help='loss that decides'
    )
    parser.add_argument('--objective', help='its name, where there are several GuidanceRoutes')
    parser.add_argument('--work-dir', help='default: work_dirs/<config name>/routes')
    parser.add_argument('--out', help='also write the result as JSON')
    add_common(parser)
    add_verbose(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    from mmkd.analysis.routes import search_routes
    from mmkd.commands.console import console
    from mmkd.config import default_work_dir, load_config
    from mmkd.engine.console.screen import current_screen
    from mmkd.engine.launch import apply_common
    from mmkd.engine.writable import check_file

    with console(args) as hooks:
        config = apply_common(args, load_config(args.config))
        hooks(config)  # the config may ask for the whole log; a probe says nothing of itself
        work_dir = args.work_dir or f'{default_work_dir(config.filename)}/routes'
        if args.out:  # refuse now what could not be written after the last round
            check_file(args.out, '--out')
        settings = args.epochs, args.hold_out, args.seed, args.rank, args.objective
        found = search_routes(config, work_dir, *settings, progress=current_screen().say)
    print(found.text())
    if args.out:
        Path(args.out).write_text(json.dumps(found.as_dict(), indent=1) + '\n')


def main(argv: Sequence[str] | None = None) -> None:
    execute(parser(), run, argv)
