"""Kill training runs at random moments, resume them, and compare with runs that nobody killed.

    python tests/endtoend/kill_and_compare.py --runs 50

Each run is a real training process with its data workers, as tools/train.py starts one. It gets
SIGKILL up to three times, at moments drawn from the whole length of a run, start and end included,
and is resumed each time. Every loss, learning rate and metric of every attempt, and all that the
last checkpoint holds (weights, EMA, optimisers, schedules, random states), must be bit for bit what
the uninterrupted run has. Exit status 1 if anything differs. Nothing is written but a temporary
folder; a run takes seconds, because the processes are forked from one that has imported everything.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import loops
from mmengine.runner import runner as mm_runner
from recipes import MODELS, distilled, recipe
from yapf.yapflib import yapf_api

from mmkd.checkpoint import read_checkpoint
from mmkd.engine.launch import build_runner, prepare
from mmkd.teacher import build_model

INFINITE = dict(type='InfiniteSampler', shuffle=True)
EMA = dict(type='EMAHook')
CWD = dict(cwd=dict(type='mmkd.CWD'))
#: a critic with an optimiser of its own, and a memory of what was seen
STATEFUL = dict(
    critic=dict(type='mmkd.SKDHolistic', width=8),
    memory=dict(type='mmkd.CIRKDMemory', pixel_size=32, region_size=32, pixels=24, regions=24),
)
#: a peer that learns and teaches, from the random streams of its own (dropout), and an average
MUTUAL = dict(
    down=dict(type='mmkd.KD', teacher_name='other', tau=1),
    up=dict(type='mmkd.CWD', learner='other', teacher_name='student'),
    past=dict(type='mmkd.CWD', teacher_name='past'),
)
PEERS = dict(
    objectives=MUTUAL,
    peers=dict(other=MODELS['pspnet'](width=4)),
    teacher=dict(type='mmkd.Momentum'),
)
BY_EPOCH = dict(by_epoch=True, max_epochs=3, val_interval=1)
BY_ITER = dict(by_epoch=False, max_iters=12, val_interval=5)
EACH_ITER = dict(type='CheckpointHook', by_epoch=False, interval=1, max_keep_ckpts=2)
EACH_EPOCH = dict(type='CheckpointHook', interval=1, save_best='mIoU')

CASES: dict[str, dict[str, Any]] = {
    'epochs': dict(train_cfg=BY_EPOCH, checkpoint=EACH_EPOCH, objectives=CWD),
    'epochs, inside, EMA': dict(
        train_cfg=BY_EPOCH, checkpoint=EACH_ITER, objectives=CWD, custom_hooks=[EMA], workers=2
    ),
    'epochs, short-lived workers, memory and critic': dict(
        train_cfg=BY_EPOCH, checkpoint=EACH_ITER, objectives=STATEFUL, workers=2, persistent=False
    ),
    'iterations, memory and critic': dict(
        train_cfg=BY_ITER, checkpoint=EACH_ITER, objectives=STATEFUL, sampler=INFINITE
    ),
    'iterations, workers, EMA, memory and critic': dict(
        train_cfg=BY_ITER,
        checkpoint=EACH_ITER | dict(interval=2),
        objectives=STATEFUL,
        custom_hooks=[EMA],
        sampler=INFINITE,
        workers=2,
    ),
    'epochs, inside, workers, a peer and an average': dict(
        train_cfg=BY_EPOCH, checkpoint=EACH_ITER, custom_hooks=[EMA], workers=2, **PEERS
    ),
    'iterations, a peer in turns and an average': dict(
        train_cfg=BY_ITER,
        checkpoint=EACH_ITER,
        sampler=INFINITE,
        trains=dict(student=dict(every=3, count=2), peers=dict(every=3, first=1, count=2)),
        **PEERS,
    ),
}


class Journal(Hook):
    """Writes what each step gave to a file, so that it outlives the process."""

    priority = 'VERY_HIGH'  # before the checkpoint of the step: whatever that holds is written

    def __init__(self, path: Path) -> None:
        self.path = path

    def _write(self, key: str, values: dict[str, Any]) -> None:
        exact = {name: float(value).hex() for name, value in values.items()}
        with open(self.path, 'a') as file:
            file.write(json.dumps([key, exact]) + '\n')

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        rates = {name: rate[0] for name, rate in runner.optim_wrapper.get_lr().items()}
        losses = {name: value.detach() for name, value in outputs.items()}
        self._write(f'iteration {runner.iter}', losses | rates)

    def after_val_epoch(self, runner: Any, metrics: dict | None = None) -> None:
        self._write(f'validation at {runner.iter}', metrics or {})


def config_of(case: dict[str, Any], data: Path, work_dir: Path) -> Any:
    """A complete training config of a segmentor on eight images."""
    model = distilled('pspnet', teacher=str(data / 'teacher.pth'))
    model['objectives'] = case['objectives']
    if 'peers' in case:
        model.update(peers=case['peers'], teacher=dict(past=case['teacher']))
    if 'trains' in case:
        model['trains'] = case['trains']
    config = recipe('pspnet', data / 'images', work_dir, model)
    config.train_cfg = case['train_cfg']
    config.default_hooks.checkpoint = case['checkpoint']
    config.custom_hooks = case.get('custom_hooks', [])
    config.param_scheduler = [dict(type='LinearLR', start_factor=0.1, end=9, by_epoch=False)]
    if 'sampler' in case:
        config.train_dataloader.sampler = case['sampler']
    workers = case.get('workers', 0)
    for loader in (config.train_dataloader, config.val_dataloader):
        loader.num_workers = workers
        loader.persistent_workers = bool(workers) and case.get('persistent', True)
    return config


def train(case: dict[str, Any], data: Path, work_dir: Path) -> None:
    """What one process does: go on where the last one was, or begin."""
    torch.manual_seed(os.getpid())  # nothing may depend on what a process happens to start with
    random.seed(os.getpid())
    config = config_of(case, data, work_dir)
    config.resume = True
    runner = build_runner(prepare(config))
    runner.register_hook(Journal(work_dir / 'journal'))
    runner.train()


def in_child(function: Callable[[], None], output: Path, kill_after: float | None = None) -> bool:
    """Run it in a process of its own; returns whether it was killed.

    Raises:
        RuntimeError: it failed by itself.
    """
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException), open(output, 'a') as file:
            os.setpgid(0, 0)
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            try:
                function()
                code = 0
            except BaseException:
                traceback.print_exc()
        os._exit(code)
    status = _wait(child, kill_after)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # workers that are left
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status):
        raise RuntimeError(f'the training process failed:\n{output.read_text()[-3000:]}')
    return False


def _wait(child: int, kill_after: float | None) -> int:
    deadline = None if kill_after is None else time.monotonic() + kill_after
    while deadline is not None and time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.002)
    if deadline is not None:
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def journal_of(work_dir: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """What was written of each step; a line that the kill cut off does not count."""
    for line in (work_dir / 'journal').read_text().splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            yield tuple(json.loads(line))


def differences(found: Any, wanted: Any, path: str = 'checkpoint') -> Iterator[str]:
    """Places in which two trees of plain values and tensors are not the same bit for bit."""
    if isinstance(wanted, dict):
        if not isinstance(found, dict) or found.keys() != wanted.keys():
            yield f'{path}: other keys'
            return
        for key in wanted:
            yield from differences(found[key], wanted[key], f'{path}.{key}')
    elif isinstance(wanted, (list, tuple)):
        if len(found) != len(wanted):
            yield f'{path}: {len(found)} entries for {len(wanted)}'
            return
        for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
            yield from differences(a, b, f'{path}[{i}]')
    elif isinstance(wanted, torch.Tensor):
        if not torch.equal(found, wanted):
            yield f'{path}: another tensor'
    elif found != wanted:
        yield f'{path}: {str(found)[:60]} for {str(wanted)[:60]}'


def compare(work_dir: Path, whole: Path) -> list[str]:
    """Everything in which a run differs from the uninterrupted one."""
    wanted = dict(journal_of(whole))
    found = list(journal_of(work_dir))
    bad = [f'{key}: {values} for {wanted[key]}' for key, values in found if values != wanted[key]]
    bad += [f'{key} is missing' for key in wanted.keys() - dict(found).keys()]
    last = Path((whole / 'last_checkpoint').read_text()).name
    pair = [read_checkpoint(folder / last) for folder in (work_dir, whole)]
    kept = [
        {k: v for k, v in checkpoint.items() if k not in ('meta', 'message_hub')}
        for checkpoint in pair
    ]
    return bad + list(differences(*kept))


def one_run(
    case: dict[str, Any], data: Path, folder: Path, length: float, draw: random.Random
) -> tuple[int, list[str]]:
    """Kill one run one to three times; returns how often, and the differences."""
    work_dir = folder / 'killed'
    shutil.rmtree(work_dir, ignore_errors=True)
    work_dir.mkdir()
    kills, wanted = 0, draw.randint(1, 3)
    while kills < wanted:
        moment = draw.uniform(0, 1.05 * length)
        if not in_child(lambda: train(case, data, work_dir), folder / 'output', moment):
            break
        kills += 1
    in_child(lambda: train(case, data, work_dir), folder / 'output')
    return kills, compare(work_dir, folder / 'whole')


def without_pauses() -> None:
    """mmengine lays out the config anew for each checkpoint, and sleeps between epochs."""
    yapf_api.FormatCode = lambda text, **options: (text, False)
    loops.time = SimpleNamespace(sleep=lambda seconds: None)
    mm_runner.collect_env = dict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--runs', type=int, default=50, help='shared out over the cases')
    parser.add_argument('--seed', type=int, default=0, help='of the moments')
    parser.add_argument('--only', default='', help='cases with these words in their name')
    args = parser.parse_args()
    cases = {name: case for name, case in CASES.items() if args.only in name}
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    without_pauses()
    draw = random.Random(args.seed)
    folder = Path(tempfile.mkdtemp(prefix='kill_and_compare_'))
    exact = killed = done = 0
    try:
        torch.manual_seed(0)
        teacher = build_model(MODELS['pspnet'](width=16))
        torch.save(teacher.state_dict(), folder / 'teacher.pth')
        for index, (name, case) in enumerate(cases.items()):
            place = folder / str(index)
            (place / 'whole').mkdir(parents=True)
            start = time.monotonic()
            in_child(lambda c=case, p=place: train(c, folder, p / 'whole'), place / 'output')
            length = time.monotonic() - start
            while done < args.runs * (index + 1) // len(cases):
                kills, bad = one_run(case, folder, place, length, draw)
                if not kills:
                    continue  # it was done before the first moment
                done, killed, exact = done + 1, killed + kills, exact + (not bad)
                verdict = 'exact' if not bad else f'DIFFERS: {"; ".join(bad[:5])}'
                print(f'run {done} ({name}), killed {kills} times: {verdict}', flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f'{exact} of {done} runs exact, {killed} kills')
    raise SystemExit(exact < done)


if __name__ == '__main__':
    main()
