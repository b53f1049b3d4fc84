"""Which method works on which pair of stock models: python tools/compatibility.py [--jobs N]

Plans every method on every pair of PAIRS (as plan.py --method all does), follows the advice of
refusals, and trains two steps with each method that fits, on random pixels with random weights. One
process per pair; finished pairs are kept in --work-dir, and the same command continues later.
The table is written to docs/compatibility.md.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from mmengine.registry import DefaultScope
from torch.nn.modules.batchnorm import _BatchNorm

from mmkd.analysis.batches import random_batch
from mmkd.analysis.compatibility import page
from mmkd.analysis.fits import Pair
from mmkd.analysis.trial import try_steps
from mmkd.checkpoint import atomic_file
from mmkd.config import load_config
from mmkd.errors.ending import plain_errors
from mmkd.families.two_stage import few_proposals
from mmkd.methods import names
from mmkd.plan.probe import SIZES, dummy_samples, first_that_runs
from mmkd.route import run_route
from mmkd.teacher import Teacher, build_model

ROOT = Path(__file__).resolve().parent.parent
#: RoIs sampled in an image, where a config has more
ROIS = 16
LINES = Path(__file__).with_name('compatibility_pairs.txt').read_text().splitlines()
#: student, teacher
PAIRS = [tuple(line.split()) for line in LINES if line and not line.startswith('#')]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--only', nargs='+', type=int, metavar='N', help='these pairs, from 1')
    parser.add_argument('--methods', nargs='+', help='default: all')
    parser.add_argument('--jobs', type=int, default=1, help='pairs at a time')
    parser.add_argument('--steps', type=int, default=2, help='trained with each method that fits')
    parser.add_argument('--work-dir', default='work_dirs/compatibility')
    parser.add_argument('--out', default=str(ROOT / 'docs' / 'compatibility.md'))
    parser.add_argument('--list', action='store_true', help='print the pairs and stop')
    parser.add_argument('--here', action='store_true', help=argparse.SUPPRESS)  # in this process
    return parser.parse_args()


def untrained(path: str) -> torch.nn.Module:
    """A stock model without its downloads."""
    config = load_config(path)

    def forget(entry) -> None:
        if isinstance(entry, dict):
            for key, value in entry.items():
                loaded = isinstance(value, dict) and 'checkpoint' in value
                if key == 'pretrained' or (key == 'init_cfg' and loaded) or key == 'teacher_ckpt':
                    entry[key] = None
                else:
                    forget(value)
        elif isinstance(entry, (list, tuple)):
            for item in entry:
                forget(item)

    model = config.model.to_dict()
    forget(model)
    rcnn = (model.get('train_cfg') or {}).get('rcnn') or {}
    for stage in rcnn if isinstance(rcnn, list) else [rcnn]:
        if stage.get('sampler', {}).get('num', 0) > ROIS:
            stage['sampler']['num'] = ROIS
    return build_model(dict(model=plain_student(model), default_scope=config.get('default_scope')))


def plain_student(model: dict) -> dict:
    """mmdet's own LD as the GFL that it trains."""
    if model.get('type') != 'KnowledgeDistillationSingleStageDetector':
        return model
    head = {k: v for k, v in model['bbox_head'].items() if k != 'loss_ld'} | dict(type='GFLHead')
    rest = {k: v for k, v in model.items() if not k.startswith('teacher')}
    return rest | dict(type='GFL', bbox_head=head)


@torch.no_grad()
def undecided(teacher: torch.nn.Module) -> None:
    """Heads for the focal loss begin with scores of 0.01, among which nothing is a detection."""
    for parameter in teacher.parameters():
        if parameter.dim() == 1 and bool((parameter < -4).all()):
            parameter.zero_()


@torch.no_grad()
def calibrated(teacher: torch.nn.Module) -> None:
    """Statistics of BatchNorm from one batch: with those of no data the maps of a deep network
    vanish, and with them every loss on maps."""
    norms = [m for m in teacher.modules() if isinstance(m, _BatchNorm)]
    kept = [norm.momentum for norm in norms]
    teacher.eval()
    for norm in norms:
        norm.train().momentum = 1

    def run(side: int) -> None:
        inputs, _ = random_batch(teacher, (side, side), 2, 6)
        run_route(teacher, 'tensor', inputs, 2 * dummy_samples(side))

    with few_proposals(teacher):
        first_that_runs(SIZES, run)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
    teacher.eval()


def side_of(pair: Pair) -> int:
    """Half of the side that was planned with, which is faster; but DETRs that pick their queries
    among the cells of all levels need more of them than there would be."""
    picks = any(getattr(m, 'as_two_stage', False) for m in (pair.student, pair.teacher.model))
    return pair.size // 2 if pair.size == SIZES[0] and not picks else pair.size


def try_pair(number: int, methods: list[str], steps: int) -> dict:
    """Plan and train one pair."""
    student, teacher = PAIRS[number - 1]
    start = time.time()
    torch.manual_seed(0)
    scope = load_config(student).get('default_scope')
    with DefaultScope.overwrite_default_scope(scope):
        networks = [untrained(path) for path in (student, teacher)]
        for network in networks:
            with contextlib.suppress(AttributeError):  # SAN's own cannot without its file
                network.init_weights()
        undecided(networks[1])
        calibrated(networks[1])
        pair = Pair(networks[0], Teacher(networks[1], 'random'))
        fits = list(pair.fits(methods))
        planned, size = time.time() - start, side_of(pair)
        batch = random_batch(pair.student, (size, size), 2, 6)
        stopped = try_steps(pair, fits, batch, steps) if steps else {}
    rows = [dict(vars(fit), step=stopped.get(fit.method)) for fit in fits]
    seconds = dict(planned=round(planned, 1), all=round(time.time() - start, 1))
    return dict(
        student=student, teacher=teacher, size=size, seconds=seconds, steps=steps, fits=rows
    )


def run(number: int, args: argparse.Namespace) -> None:
    """One pair in a process of its own, unless it is there."""
    path = Path(args.work_dir) / f'{number:03d}.json'
    if path.is_file():
        return
    if not args.here:
        command = [sys.executable, __file__, '--here', '--only', str(number)]
        command += ['--steps', str(args.steps), '--work-dir', args.work_dir]
        done = subprocess.run(
            command + (['--methods', *args.methods] if args.methods else []),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if not path.is_file():
            path.with_suffix('.log').write_text(done.stdout)
        print(
            f'{number:3d}  {"done" if path.is_file() else "FAILED"}  {PAIRS[number - 1][0]}',
            flush=True,
        )
        return
    result = try_pair(number, args.methods or names(), args.steps)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(str(path)) as part:
        Path(part).write_text(json.dumps(result, indent=1))


def main() -> None:
    args = parse_args()
    numbers = args.only or range(1, len(PAIRS) + 1)
    if args.list:
        print('\n'.join(f'{n:3d}  {PAIRS[n - 1][0]}  {PAIRS[n - 1][1]}' for n in numbers))
        return
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(lambda number: run(number, args), numbers))
    if not args.here:
        found = [json.loads(p.read_text()) for p in sorted(Path(args.work_dir).glob('*.json'))]
        text, faults = page(found)
        Path(args.out).write_text(text)
        print('\n'.join(faults) or 'plan and step agree, and all advice works')


if __name__ == '__main__':
    with plain_errors():
        main()
