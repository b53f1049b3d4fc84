"""Measure a distillation: python tools/benchmark.py step CONFIG [CONFIG ...], or gradients CONFIG

``step`` times, in turn and in one process, a plain student step, that and a bare teacher forward
(the floor), and the distilled step of each config; peak memory likewise. Weights are random, no
data is read. Several configs must share student and teacher.

``gradients`` takes training batches and a student's --checkpoint, and compares the gradient of
each term with that of the task: a ratio far below 0.1 teaches little, one far above 1 drowns the
task, and a negative cosine pulls against it.
"""

import argparse
from pathlib import Path

import torch

import mmkd  # noqa: F401  (registers the scope)
from mmkd.analysis import gradients
from mmkd.analysis.benchmark import benchmark_step, report
from mmkd.config import load_config
from mmkd.engine.launch import add_common, apply_common, check_data
from mmkd.errors.ending import plain_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('what', choices=['step', 'gradients'])
    parser.add_argument('config', nargs='+')
    parser.add_argument('--size', type=int, nargs=2, default=(256, 256), metavar=('H', 'W'))
    parser.add_argument('--batch', type=int, default=2, help='images a step')
    parser.add_argument('--rounds', type=int, default=7, help='measured steps or batches')
    parser.add_argument('--boxes', type=int, default=8, help='ground-truth boxes an image')
    parser.add_argument('--teacher-dtype', choices=['bf16', 'fp16'])
    parser.add_argument('--checkpoint', help='gradients: the student; untrained without')
    add_common(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    configs = {Path(path).stem: apply_common(args, load_config(path)) for path in args.config}
    if args.what == 'gradients':
        for name, config in configs.items():
            check_data(config, 'train')
            pulls = gradients.measure_gradients(config, args.checkpoint, args.rounds)
            print(f'{name}, {args.checkpoint or "untrained student"}, {args.rounds} batches')
            print(gradients.report(pulls))
        return
    costs = benchmark_step(
        configs, tuple(args.size), args.batch, args.rounds, args.boxes, args.teacher_dtype
    )
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'
    print(
        f'{args.batch} x {args.size[0]} x {args.size[1]}, {device}, '
        f'{torch.get_num_threads()} threads, torch {torch.__version__}'
    )
    print(report(costs))


if __name__ == '__main__':
    with plain_errors():
        main()
