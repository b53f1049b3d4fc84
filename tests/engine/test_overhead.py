"""The line that says what distillation costs."""

import re
from types import SimpleNamespace

import pytest
import torch

from mmkd.distiller import Distiller
from mmkd.engine.overhead import OverheadHook
from mmkd.methods.cwd import CWD
from mmkd.teacher import Teacher
from mmkd.testing import ToyNet, class_labels, pixels
from mmkd.timing import StepTimer
from mmkd.trains import PLAYERS, Trains


def run(hook, steps, model=None):
    torch.manual_seed(0)
    model = model or Distiller(
        ToyNet(), dict(cwd=CWD(student='neck', tau=1)), Teacher(ToyNet(6), checkpoint='random')
    )
    lines = []
    runner = SimpleNamespace(model=model, logger=SimpleNamespace(info=lines.append))
    for index in range(steps):
        hook.before_train_iter(runner, index)
        losses = model(pixels(), class_labels(torch.arange(2)), mode='loss')
        sum(v for k, v in losses.items() if 'loss' in k).backward()
        hook.after_train_iter(runner, index)
    return model, lines


def test_one_line_after_the_warmup():
    hook = OverheadHook(warmup=2, steps=3)
    model, lines = run(hook, 9)
    assert len(lines) == 1
    assert re.fullmatch(
        r'cost: \d+ ms a step, \d+\.\d\d x plain training \(\d+ ms student, \d+ ms teacher, \d+ ms '
        r'objectives\); about \d+ MiB more memory \(\d+ teacher weights, \d+ kept for the objectives\)',
        lines[0],
    )
    assert not model.timer.enabled and not hook.total.enabled
    assert len(hook.total.marks['step']) == 3
    assert len(model.timer.marks['teacher']) == len(model.timer.marks['objectives_backward']) == 3
    assert model.timer.saved_bytes > 0


def test_the_parts_are_taken_off():
    hook = OverheadHook(warmup=0, steps=2)
    parts = dict(teachers={}, peers=torch.nn.ModuleDict(), task_weight=1)
    model = SimpleNamespace(timer=StepTimer(), trains=Trains.of(PLAYERS), **parts)
    for timer, part, seconds in (
        (hook.total, 'step', 1.0),
        (model.timer, 'teacher', 0.2),
        (model.timer, 'objectives', 0.1),
        (model.timer, 'objectives_backward', 0.15),
    ):
        timer.marks[part] = [(0.0, seconds)] * 2
    # The backward of the objectives ran twice: 1.0 - 0.15 is the real step, 0.4 of it plain.
    assert hook.report(model).startswith(
        'cost: 850 ms a step, 2.13 x plain training (400 ms student, 200 ms teacher, 250 ms objectives)'
    )

    model.trains = Trains.of('objectives')
    text = hook.report(model)
    assert text.startswith(
        'cost: 850 ms a step (400 ms student, 200 ms teacher, 250 ms objectives)'
    )
    assert text.endswith('; trains: objectives')


def test_a_run_that_is_too_short_or_plain_prints_nothing():
    assert run(OverheadHook(warmup=5, steps=5), 4)[1] == []
    assert run(OverheadHook(warmup=0, steps=1), 3, ToyNet())[1] == []


@pytest.mark.parametrize('options', [dict(warmup=-1), dict(steps=0)])
def test_bad_options(options):
    with pytest.raises(ValueError, match='OverheadHook'):
        OverheadHook(**options)
