"""Measure a distillation: python tools/benchmark.py step CONFIG, or gradients CONFIG

``step`` times, in turn and in one process, a plain student step, that and a bare teacher forward
(the floor), and the distilled step; peak memory likewise. Weights are random, no data is read.

``gradients`` takes training batches and a student's --checkpoint, and compares the gradient of
each term with that of the task: a ratio far below 0.1 teaches little, one far above 1 drowns the
task, and a negative cosine pulls against it.
"""

import argparse

import torch

import mmkd  # noqa: F401  (registers the scope)
from mmkd.config import load_config
from mmkd.engine import gradients
from mmkd.engine.benchmark import benchmark_step, report
from mmkd.engine.launch import add_common, apply_common, check_data, plain_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('what', choices=['step', 'gradients'])
    parser.add_argument('config')
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
    config = apply_common(args, load_config(args.config))
    if args.what == 'gradients':
        check_data(config, 'train')
        pulls = gradients.measure_gradients(config, args.checkpoint, args.rounds)
        print(f'{args.config}, {args.checkpoint or "untrained student"}, {args.rounds} batches')
        print(gradients.report(pulls))
        return
    costs = benchmark_step(
        config, tuple(args.size), args.batch, args.rounds, args.boxes, args.teacher_dtype
    )
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'
    print(
        f'{args.config}, {args.batch} x {args.size[0]} x {args.size[1]}, {device}, '
        f'{torch.get_num_threads()} threads, torch {torch.__version__}'
    )
    print(report(costs))


if __name__ == '__main__':
    with plain_errors():
        main()
