"""Measure step time and memory of a distillation, or the gradients of its terms.

    mmkd benchmark step CONFIG [CONFIG ...]
    mmkd benchmark gradients CONFIG [CONFIG ...] --checkpoint STUDENT
    mmkd benchmark operators [CONFIG]

``step`` times, in turn and in one process, a plain student step, the same with a teacher forward
(the floor), and the distilled step of each config, with peak memory. Weights are random, and no
data is read. Several configs must have the same student and teacher.

``gradients`` compares the gradient of each term with the task's on training batches, for a
student's --checkpoint: with a ratio far below 0.1 a term has little influence, with one far above 1
it dominates the task loss, and with a negative cosine the two conflict.

``operators`` compares mmkd's operators with mmcv's compiled ones, and a step of the student with
either.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmkd.commands.arguments import MixedParser, add_common, command_parser, execute
from mmkd.commands.console import without_log

#: kinds of teacher, see mmkd.analysis.benchmark
TEACHERS = (
    'plain',
    'bf16',
    'fp16',
    'fused',
    'channels_last',
    'fast',
    'compile',
    'fast_compile',
    'stream',
)


def parser() -> argparse.ArgumentParser:
    parser = command_parser('benchmark', __doc__, MixedParser)
    parser.add_argument('what', choices=['step', 'gradients', 'operators'])
    parser.add_argument('config', nargs='*')
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        default=(256, 256),
        metavar=('H', 'W'),
        help='of images (256 256)',
    )
    parser.add_argument('--batch', type=int, default=2, help='images in a step (%(default)s)')
    parser.add_argument(
        '--rounds', type=int, default=7, help='measured steps or batches (%(default)s)'
    )
    parser.add_argument(
        '--boxes', type=int, default=8, help='ground-truth boxes in an image (%(default)s)'
    )
    parser.add_argument(
        '--teachers', nargs='+', default=['plain'], choices=TEACHERS, help='step: rows to compare'
    )
    parser.add_argument(
        '--device', choices=['cpu', 'cuda'], help='step; default: a GPU if there is one'
    )
    parser.add_argument('--amp', action='store_true', help='step: under autocast')
    parser.add_argument('--checkpoint', help="gradients: the student's weights; default: untrained")
    add_common(parser)
    return parser


@without_log()
def run(args: argparse.Namespace) -> None:
    if not args.config and args.what != 'operators':
        parser().error(f'benchmark {args.what} needs a CONFIG')
    from mmkd.config import load_config
    from mmkd.engine.launch import apply_common
    from mmkd.options import check_number

    for option, least in (('batch', 1), ('rounds', 1), ('boxes', 0)):
        check_number('benchmark', f'--{option}', getattr(args, option), least, whole=True)
    for pixels in args.size:
        check_number('benchmark', '--size', pixels, 1, whole=True)
    configs = {Path(path).stem: apply_common(args, load_config(path)) for path in args.config}
    measures = {
        'step': measure_steps,
        'gradients': measure_gradients,
        'operators': measure_operators,
    }
    measures[args.what](args, configs)


def measure_gradients(args: argparse.Namespace, configs: Mapping[str, Any]) -> None:
    from mmkd.analysis import gradients
    from mmkd.engine.launch import check_data

    for name, config in configs.items():
        check_data(config, 'train')
        terms = gradients.measure_gradients(config, args.checkpoint, args.rounds)
        print(f'{name}, {args.checkpoint or "untrained student"}, {args.rounds} batches')
        print(gradients.report(terms))


def measure_steps(args: argparse.Namespace, configs: Mapping[str, Any]) -> None:
    from mmkd.analysis.benchmark import benchmark_step, report

    costs = benchmark_step(
        configs,
        tuple(args.size),
        args.batch,
        args.rounds,
        args.boxes,
        args.teachers,
        args.device,
        args.amp,
    )
    print_setting(args)
    print(report(costs))


def measure_operators(args: argparse.Namespace, configs: Mapping[str, Any]) -> None:
    from mmkd.analysis.benchmark import report
    from mmkd.analysis.operator_speed import benchmark_operators

    args.device = 'cpu'  # where mmkd's take the place of compiled ones
    for config in list(configs.values()) or [None]:
        costs = benchmark_operators(config, tuple(args.size), args.batch, args.rounds, args.boxes)
        print_setting(args)
        print(report(costs))


def print_setting(args: argparse.Namespace) -> None:
    import torch

    gpu = torch.cuda.is_available() and args.device != 'cpu'
    tf32 = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    name = f'{torch.cuda.get_device_name()}, tf32 of convolutions, matmul: {tf32}' if gpu else 'CPU'
    print(
        f'{args.batch} x {args.size[0]} x {args.size[1]}, {name}, '
        f'{torch.get_num_threads()} threads, torch {torch.__version__}{", amp" * args.amp}'
    )


def main(argv: Sequence[str] | None = None) -> None:
    execute(parser(), run, argv)
