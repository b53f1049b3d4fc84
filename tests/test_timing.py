"""Where a distilled step spends its time."""

import time

import torch
from torch import nn

from mmkd import timing
from mmkd.tap import Side
from mmkd.timing import StepTimer


def test_what_objectives_learn_is_part_of_their_backward():
    timer, seen = StepTimer(), []
    timer.enabled = True
    factor = torch.nn.Parameter(torch.ones(1))
    loss = factor.square().sum()
    loss.register_hook(seen.append)
    timer.measure_backward({'it': {'kd.it.loss': loss}}, [Side(torch.nn.Module(), loss)], [factor])
    assert len(seen) == 1 and len(timer.marks['objectives_backward']) == 1
    assert factor.grad is None


def test_timing_costs_nothing_while_it_is_off():
    timer = StepTimer()
    with timer('student'):
        time.sleep(0.001)
    assert not timer.marks
    timer.enabled = True
    with timer('student'):
        time.sleep(0.002)
    assert timer.seconds('student') >= 0.002


def test_parts_add_up(monkeypatch):
    clock = iter([1.0, 1.5, 10.0, 10.25])
    monkeypatch.setattr(timing, '_mark', lambda: next(clock))
    timer = StepTimer()
    timer.enabled = True
    for _ in range(2):
        with timer('teacher'):
            pass
    assert timer.seconds('teacher') == 0.75 and timer.seconds('student') == 0


def test_what_objectives_keep_is_counted_once():
    timer, x = StepTimer(), torch.ones(1000, requires_grad=True)
    with timer('objectives'):
        x.exp()
    assert timer.saved_bytes == 0, 'it is off'
    timer.enabled = True
    with timer('objectives'):
        y = x.exp()  # keeps its result
        y.square(), y.square()  # keep the same once more
    assert timer.saved_bytes == 4000
    with timer('objectives'):
        nn.functional.linear(torch.ones(2, 3), nn.Parameter(torch.ones(4, 3)))
    assert timer.saved_bytes == 4000, 'the largest step counts, and parameters are there anyway'
