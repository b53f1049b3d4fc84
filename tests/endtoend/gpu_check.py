"""What has to work on a GPU, tried on one: operators, training, resuming, parity, messages, memory.

    make gpu-check        (or: python tests/endtoend/gpu_check.py --device cpu, a rehearsal)

Prints a table and exits with 1 if anything failed. Takes minutes on one GPU; nothing is written but
a temporary folder. A check that cannot be made here, such as two ranks on one GPU, is listed as not
run.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # read when CUDA starts

sys.path.insert(1, str(Path(__file__).parents[1] / 'conformance'))

import torch
from gpu_methods import outcomes, waits_of
from mmengine.registry import init_default_scope
from mmengine.runner import Runner as StockRunner
from recipes import distilled, python_path, recipe, run
from rich.console import Console
from rich.table import Table

import mmkd
from mmkd import generators
from mmkd.analysis.batches import random_batch
from mmkd.analysis.benchmark import peak_bytes
from mmkd.engine.launch import build_runner, prepare
from mmkd.operators import describe
from mmkd.testing import tiny_faster_rcnn, tiny_pspnet

ROOT = Path(__file__).parents[2]
Check = Callable[['Place'], str]
CHECKS: list[tuple[str, Check]] = []


class Place:
    """Where the checks run: a device, and a folder of their own."""

    def __init__(self, device: str, folder: Path, steps: int) -> None:
        self.device, self.folder, self.steps = device, folder, steps

    @property
    def gpu(self) -> bool:
        return self.device == 'cuda'

    def repeats(self, kind: str) -> bool:
        """Whether a run does the same again; pooling and cross entropy of maps on a GPU cannot."""
        return not self.gpu or kind != 'pspnet'

    def config(self, kind: str, name: str, model: dict | None = None, **changes):
        """A run on synthetic scenes, deterministic where its kernels can be."""
        torch.use_deterministic_algorithms(False)  # which a run before it may have asked for
        randomness = dict(seed=3, deterministic=self.repeats(kind))
        changes = dict(iterations=self.steps, randomness=randomness) | changes
        return recipe(kind, self.folder / f'data_{kind}', self.folder / name, model, **changes)


class NotRun(Exception):
    """A check that this machine does not allow, with the reason."""


def check(title: str) -> Callable[[Check], Check]:
    def add(function: Check) -> Check:
        CHECKS.append((title, function))
        return function

    return add


def agree(name: str, found: torch.Tensor, wanted: torch.Tensor, tolerance: float = 1e-4) -> None:
    """Stop unless two tensors of two devices are alike, relative to the largest number."""
    found, wanted = found.detach().cpu().double(), wanted.detach().double()
    if found.shape != wanted.shape:
        raise AssertionError(f'{name}: {tuple(found.shape)} for {tuple(wanted.shape)}')
    error = float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-6))
    if not error <= tolerance:
        raise AssertionError(f'{name} differs from the CPU by {error:.2g} of the largest number')


@check('operators agree with the CPU')
def operators(place: Place) -> str:
    absent, calls = [], operator_calls()
    for name, (call, tensors, learnt) in calls.items():
        try:
            wanted, found = (_answer(call, tensors, learnt, d) for d in ('cpu', place.device))
        except RuntimeError as error:
            if 'implementation for device cpu not found' not in str(error):
                raise
            absent.append(name)  # mmcv compiled it for GPUs alone
            continue
        for part, pair in enumerate(zip(found, wanted, strict=True)):
            agree(f'{name}{", gradient" if part else ""}', *pair)
    left_out = f'; not on a CPU: {", ".join(absent)}' if absent else ''
    return f'{len(calls) - len(absent)}{left_out}; in use: {describe()}'


def _answer(call: Callable, tensors: tuple, learnt: int, device: str) -> list[torch.Tensor]:
    """An operator's result, and the gradients of its first ``learnt`` arguments."""
    inputs = [t.detach().to(device).requires_grad_(i < learnt) for i, t in enumerate(tensors)]
    result = call(*inputs)
    if learnt:
        result.square().sum().backward()
    return [result, *(t.grad for t in inputs[:learnt])]


def operator_calls() -> dict[str, tuple[Callable, tuple, int]]:
    """By name: an operator, its tensors, and of how many of them there are gradients."""
    from mmcv import ops

    torch.manual_seed(0)
    corner = torch.rand(400, 2) * 60
    boxes = torch.cat((corner, corner + 1 + torch.rand(400, 2) * 40), 1)
    scores = torch.rand(400)
    rois = torch.cat((torch.randint(0, 2, (40, 1)).float(), boxes[:40]), 1)
    maps, weight = torch.randn(2, 8, 32, 40), torch.randn(8, 8, 3, 3)
    offset, mask = torch.randn(2, 18, 32, 40), torch.rand(2, 9, 32, 40)
    logits, target = torch.randn(50, 6), torch.randint(0, 7, (50,))
    shapes = torch.tensor([[32, 40]])
    points, shares = torch.rand(2, 20, 2, 1, 4, 2), torch.rand(2, 20, 2, 1, 4)
    value = torch.randn(2, 1280, 2, 4)
    start = torch.zeros(1, dtype=torch.long)
    attention = ops.multi_scale_deform_attn.MultiScaleDeformableAttnFunction.apply
    return {
        'nms': (lambda b, s: ops.nms(b, s, 0.5)[1], (boxes, scores), 0),
        'bbox_overlaps': (lambda a: ops.bbox_overlaps(a[:50], a[50:90]), (boxes,), 0),
        'roi_align': (lambda x, r: ops.roi_align(x, r, 7, 0.5, 2, 'avg', True), (maps, rois), 1),
        'roi_align, adaptive': (lambda x, r: ops.roi_align(x, r, 7, 0.5, 0), (maps, rois), 1),
        'roi_pool': (lambda x, r: ops.roi_pool(x, r, 7, 0.5), (maps, rois), 1),
        'sigmoid_focal_loss': (
            lambda z, t: ops.sigmoid_focal_loss(z, t, 2.0, 0.25, None, 'none'),
            (logits, target),
            1,
        ),
        'deform_conv2d': (
            lambda x, o, w: ops.deform_conv2d(x, o, w, 1, 1),
            (maps, offset, weight),
            3,
        ),
        'modulated_deform_conv2d': (
            lambda x, o, m, w: ops.modulated_deform_conv2d(x, o, m, w, None, 1, 1),
            (maps, offset, mask, weight),
            4,
        ),
        'ms_deform_attn': (
            lambda v, p, a: attention(v, shapes.to(v.device), start.to(v.device), p, a, 64),
            (value, points, shares),
            3,
        ),
    }


@check('trains and validates, with AMP on a GPU')
def training(place: Place) -> str:
    done = []
    for kind in ('frcnn', 'pspnet'):
        config = place.config(kind, f'amp_{kind}', distilled(kind), val_cfg=dict())
        config.train_cfg.val_interval = place.steps
        losses, _ = run(build_runner(prepare(config, amp=place.gpu)))
        assert len(losses) == place.steps, f'{kind}: {len(losses)} steps'
        done.append(f'{kind} {place.steps} steps')
    return ', '.join(done)


@check('weight 0 equals stock training')
def parity(place: Place) -> str:
    for kind in ('frcnn', 'pspnet'):
        stock = StockRunner.from_cfg(place.config(kind, f'stock_{kind}'))
        expected, weights = run(stock)
        zero = place.config(kind, f'zero_{kind}', distilled(kind, weight=0))
        losses, ours = run(build_runner(prepare(zero)))
        if not place.repeats(kind):
            for step, (found, wanted) in enumerate(zip(losses, expected, strict=True)):
                for key in ('loss', 'decode.loss_ce'):
                    pair = torch.tensor(found[key]), torch.tensor(wanted[key])
                    agree(f'{kind}, {key} of step {step}', *pair, tolerance=1e-2)
            continue
        assert losses == expected, f'{kind}: losses differ from step {_first(losses, expected)} on'
        apart = [k for k in weights if not torch.equal(weights[k], ours[k])]
        assert not apart, f'{kind}: {len(apart)} weights differ, {apart[0]} among them'
    closely = 'to 1 %: its kernels add up in any order' if place.gpu else 'likewise'
    return f'{place.steps} steps of Faster R-CNN bit for bit, PSPNet {closely}'


def _first(losses: list, expected: list) -> int:
    return next(
        i for i, pair in enumerate(zip(losses, expected, strict=True)) if pair[0] != pair[1]
    )


@check('a killed run ends as one that was not')
def resuming(place: Place) -> str:
    whole = _child(place, 'whole')
    assert whole.returncode == 0, whole.stderr[-800:]
    cut = _child(place, 'cut', die_at=place.steps // 2)
    assert cut.returncode == -9, f'it was to die of SIGKILL, but ended with {cut.returncode}'
    resumed = _child(place, 'cut', '--resume')
    assert resumed.returncode == 0, resumed.stderr[-800:]
    files = [place.folder / name / f'iter_{place.steps}.pth' for name in ('whole', 'cut')]
    states = [torch.load(f, map_location='cpu', weights_only=False)['state_dict'] for f in files]
    apart = [k for k in states[0] if not torch.equal(states[0][k], states[1][k])]
    assert not apart, f'{len(apart)} weights differ, {apart[0]} among them'
    return f'Faster R-CNN killed after step {place.steps // 2} of {place.steps}, bit for bit'


DIE = """
import os, signal
from mmengine.hooks import Hook
from mmkd.registry import HOOKS

@HOOKS.register_module()
class Die(Hook):
    priority = 'LOWEST'
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == int(os.environ.get('DIE_AT', 0)):
            os.kill(os.getpid(), signal.SIGKILL)
"""


def _child(place: Place, name: str, *words: str, die_at: int = 0) -> subprocess.CompletedProcess:
    """A training process of its own, as a user starts one."""
    config = place.config('frcnn', name, distilled('frcnn'))
    config.pop('experiment_name')
    config.default_hooks.checkpoint.interval = 1
    config.custom_imports = dict(imports=['dies'])
    config.custom_hooks = [dict(type='mmkd.Die')]
    (place.folder / 'dies.py').write_text(DIE)
    path = place.folder / f'{name}.py'
    config.dump(path)
    environment = dict(os.environ, PYTHONPATH=python_path(place.folder, ROOT), DIE_AT=str(die_at))
    if not place.gpu:
        environment['CUDA_VISIBLE_DEVICES'] = ''
    command = [sys.executable, str(ROOT / 'tools' / 'train.py'), str(path), *words]
    return subprocess.run(
        command, cwd=place.folder, env=environment, capture_output=True, text=True
    )


@check('random states are saved and put back')
def random_states(place: Place) -> str:
    state = generators.get_state(cuda=place.gpu)
    first = torch.rand(5, device=place.device)
    generators.set_state(state)
    assert torch.equal(first, torch.rand(5, device=place.device)), 'other numbers were drawn'
    return place.device


@check('messages name what is wrong')
def messages(place: Place) -> str:
    model, inputs, samples = _model(place, 'frcnn')
    inputs[0, 0, 0, 0] = float('nan')
    try:
        model.loss(inputs, samples)
    except FloatingPointError as error:
        assert 'pixels' in str(error), str(error)
    else:
        raise AssertionError('NaN among the pixels was not noticed')
    return 'NaN pixels'


def _model(place: Place, kind: str, teacher: dict | None = None, **objective):
    """A Distiller in training, and a batch for it."""
    init_default_scope('mmseg' if kind == 'pspnet' else 'mmdet')
    tiny = tiny_pspnet if kind == 'pspnet' else tiny_faster_rcnn
    config = distilled(kind)
    config['objectives'] = dict(kd=objective) if objective else config['objectives']
    config['student'], config['teacher']['config'] = tiny(width=8), tiny(width=16)
    config['teacher'].update(teacher or {})
    model = mmkd.MODELS.build(config).to(place.device).train()
    return model, *random_batch(model.student, (128, 160), 2, 3, place.device)


@check('a compiled teacher, and one beside the student')
def teachers(place: Place) -> str:
    """Losses of two steps, under AMP on a GPU, against those of the plain teacher."""
    told = []
    for kind in ('frcnn', 'pspnet'):
        wanted = _losses(place, kind)
        for options in (dict(stream=True), dict(compile=True), dict(compile=True, stream=True)):
            with patch('mmkd.compiled.BACKEND', 'inductor' if place.gpu else 'eager'):
                found = _losses(place, kind, **options)
            for key, value in wanted.items():
                agree(
                    f'{kind}, {key} with {options}', found[key], value, 2e-2 if place.gpu else 1e-3
                )
        told.append(f'{kind} {len(wanted)} losses')
    return ', '.join(told)


def _losses(place: Place, kind: str, **options) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model, inputs, samples = _model(place, kind, teacher=options)
    if options.get('compile'):
        assert model.teachers['teacher'].compiled is not None, str(model.plan)
    found = {}
    for step in range(2):
        torch.manual_seed(1)
        with torch.autocast(place.device, torch.bfloat16, enabled=place.gpu):
            losses = model.loss(inputs, samples)
        model.parse_losses(losses)[0].backward()
        found |= {f'{k} in step {step}': _sum(v) for k, v in losses.items() if 'loss' in k}
    return found


def _sum(value) -> torch.Tensor:
    return sum(value).detach() if isinstance(value, list) else value.detach()


@check('memory and waits of a step')
def costs(place: Place) -> str:
    told = []
    for kind, method in (('frcnn', 'FGFI'), ('frcnn', 'FGD'), ('pspnet', 'CIRKDMemory')):
        model, inputs, samples = _model(place, kind, type=f'mmkd.{method}')
        model.guard.steps = 0

        def step(model=model, inputs=inputs, samples=samples):
            model.parse_losses(model.loss(inputs, samples))[0].backward()

        step()
        mebibytes = peak_bytes(step) / 2**20
        places = waits_of(model.objectives['kd'], step, place.device)
        waits = places.total() if place.gpu else 'not counted'
        if places.total() > 2:
            raise AssertionError(f'{method} waits {waits} times for the device: {dict(places)}')
        told.append(f'{method} {mebibytes:.0f} MiB, waits: {waits}')
    return '; '.join(told)


@check('every method agrees with the CPU')
def methods(place: Place) -> str:
    torch.backends.cudnn.allow_tf32 = False
    found = outcomes(place.device)
    for outcome in found:
        print(outcome, flush=True)
    wrong = [f'{o.name}: {o.problem}' for o in found if o.problem]
    if wrong:
        raise AssertionError('\n'.join([f'{len(wrong)} of {len(found)}', *wrong]))
    waiting = sum(o.waits.total() > 2 for o in found)
    drawing = sum(o.draws for o in found)
    return f'{len(found)} steps, {drawing} draw random numbers; {waiting} wait more than twice'


@check('two ranks')
def two_ranks(place: Place) -> str:
    if not place.gpu or torch.cuda.device_count() < 2:
        raise NotRun(f'{torch.cuda.device_count()} GPUs here; nccl needs two')
    config = place.config('frcnn', 'ranks', distilled('frcnn'))
    config.pop('experiment_name')
    config.dump(place.folder / 'ranks.py')
    words = ['bash', str(ROOT / 'tools' / 'dist_train.sh'), str(place.folder / 'ranks.py'), '2']
    path = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
    environment = dict(os.environ, PYTHONPATH=python_path(ROOT), PATH=path)
    done = subprocess.run(words, cwd=place.folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-800:]
    return 'nccl'


@check('two groups')
def two_groups(place: Place) -> str:
    """Each is one rank, so nccl suits one GPU: two nodes of a launch are on this machine."""
    model = dict(
        distilled('frcnn'), teacher=dict(type='mmkd.Neighbours', groups=2, every=2, wait=120)
    )
    config = place.config('frcnn', 'groups', model, iterations=4)
    config.pop('experiment_name')
    config.dump(place.folder / 'groups.py')
    path = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
    common = dict(os.environ, PYTHONPATH=python_path(ROOT), PATH=path, NNODES='2', PORT='29599')
    words = ['bash', str(ROOT / 'tools' / 'dist_train.sh'), str(place.folder / 'groups.py'), '1']
    nodes = [
        subprocess.Popen(
            words,
            cwd=place.folder,
            env=common | dict(NODE_RANK=str(number)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]
    said = [node.communicate()[0] for node in nodes]
    assert not any(node.returncode for node in nodes), '\n'.join(text[-800:] for text in said)
    files = [place.folder / 'groups' / f'group_{k}' / 'iter_4.pth' for k in range(2)]
    assert all(file.is_file() for file in files), said
    return 'nccl within groups' if place.gpu else 'gloo'


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--device', choices=['cuda', 'cpu'], default='cuda')
    parser.add_argument('--steps', type=int, default=8, help='of each training run')
    args = parser.parse_args(argv)
    if args.device == 'cuda' and not torch.cuda.is_available():
        print('error: torch sees no GPU. --device cpu rehearses the checks on a CPU.')
        return 1
    name = torch.cuda.get_device_name() if args.device == 'cuda' else 'CPU'
    table = Table(title=f'{name}, torch {torch.__version__}')
    for column in ('check', 'result', 'seconds', 'what'):
        table.add_column(column, overflow='fold')
    failed = 0
    with tempfile.TemporaryDirectory(prefix='gpu_check_') as folder:
        place = Place(args.device, Path(folder), args.steps)
        for title, function in CHECKS:
            start, result = time.monotonic(), 'ok'
            try:
                told = function(place)
            except NotRun as reason:
                result, told = 'not run', str(reason)
            except Exception as error:
                traceback.print_exc()
                result, told, failed = 'FAILED', f'{type(error).__name__}: {error}', failed + 1
            table.add_row(title, result, f'{time.monotonic() - start:.0f}', told)
    Console(width=max(Console().width, 100)).print(table)
    return int(failed > 0)


if __name__ == '__main__':
    sys.exit(main())
