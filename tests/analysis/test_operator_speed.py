"""mmkd's operators beside compiled ones: what is compared with what."""

import pytest

from mmkd.analysis import operator_speed
from mmkd.operators.extension import own_operators
from mmkd.teacher import build_model
from mmkd.testing import tiny_faster_rcnn


def test_every_task_runs_with_either_kind_and_is_compared_with_the_compiled(monkeypatch):
    seen = {}

    def measure(steps, rounds, floors):
        for name, step in steps.items():
            calls.clear()
            step()
            seen[name] = (floors[name], list(calls))
        return {}

    calls = []
    slow = {
        'nms': lambda *args, **kwargs: (
            calls.append('nms') or own_operators()['nms'](*args, **kwargs)
        )
    }
    monkeypatch.setattr(operator_speed, 'compiled_operators', lambda: own_operators() | slow)
    monkeypatch.setattr(operator_speed, 'measure', measure)
    for name, small in {
        'roi_align': (4, 2, 30),
        'deform_conv': (4, 6),
    }.items():
        task = getattr(operator_speed, name)
        monkeypatch.setattr(operator_speed, name, lambda task=task, small=small: task(*small))
    operator_speed.benchmark_operators(tiny_faster_rcnn(), (64, 64))
    assert len(seen) == 8
    for name, (floor, called) in seen.items():
        task, kind = name.split(', ')
        assert floor == f'{task}, compiled'
        assert bool(called) == (kind == 'compiled' and task in ('NMS', 'step'))


def test_without_compiled_operators_there_is_nothing_to_compare(monkeypatch):
    monkeypatch.setattr(operator_speed, 'compiled_operators', dict)
    with pytest.raises(ValueError, match='mmcv has none here. Run: .*pip install'):
        operator_speed.benchmark_operators()


def test_a_step_starts_without_gradients_and_leaves_none():
    model = build_model(tiny_faster_rcnn())
    seen = []
    model.register_forward_hook(
        lambda *_: seen.append(any(p.grad is not None for p in model.parameters()))
    )
    model.backbone.conv1.weight.register_hook(lambda gradient: seen.append(gradient.any().item()))
    step = operator_speed.student_step(model, (64, 64), 2, 3)
    step()
    step()
    assert seen == [False, True, False, True]
    assert all(p.grad is None for p in model.parameters())
