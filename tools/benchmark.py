"""Measure cost: python tools/benchmark.py step CONFIG [--size 256 256] [--batch 2]

Times, in turn and in one process, a plain student step, that and a bare teacher forward (the
floor), and the distilled step; peak memory likewise. Weights are random and no data is read.
"""

import argparse

import torch

import mmkd  # noqa: F401  (registers the scope)
from mmkd.config import load_config
from mmkd.engine.benchmark import benchmark_step, report
from mmkd.engine.launch import add_common, apply_common, plain_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('what', choices=['step'])
    parser.add_argument('config')
    parser.add_argument('--size', type=int, nargs=2, default=(256, 256), metavar=('H', 'W'))
    parser.add_argument('--batch', type=int, default=2)
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--boxes', type=int, default=8, help='ground-truth boxes an image')
    parser.add_argument('--teacher-dtype', choices=['bf16', 'fp16'])
    add_common(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    config = apply_common(args, load_config(args.config))
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
