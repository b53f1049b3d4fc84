"""What a run notes of itself, and goes on with."""

import json
from types import SimpleNamespace

import pytest

from mmkd.study import measure
from mmkd.study.measure import MeasureHook


def run_of(at=0, by_epoch=True):
    return SimpleNamespace(
        iter=at,
        epoch=at,
        max_epochs=2,
        max_iters=80,
        train_loop=SimpleNamespace(max_epochs=2),
        cfg=SimpleNamespace(train_cfg=dict(by_epoch=by_epoch)),
    )


@pytest.fixture
def clock(monkeypatch):
    times = iter([1.0, 1.25, 2.0, 2.75, 3.0, 3.5])
    monkeypatch.setattr(measure.time, 'perf_counter', lambda: next(times))
    monkeypatch.setattr(measure, '_peak', lambda: 7)


def steps(hook, runner, count):
    for _ in range(count):
        hook.before_train_iter(runner)
        hook.after_train_iter(runner)


def test_curve_step_and_peak_outlive_a_kill(tmp_path, clock):
    hook, runner = MeasureHook(str(tmp_path)), run_of()
    hook.before_train(runner)
    steps(hook, runner, 2)
    runner.epoch = 1
    hook.after_val_epoch(runner, {'accuracy/top1': 50.0, 'text': 'a'})
    kept = json.loads((tmp_path / 'measured.json').read_text())
    assert kept == dict(
        curve={'1': {'accuracy/top1': 50.0}}, unit='epoch', length=2, step=0.5, steps=2, peak=7
    )
    again, runner = MeasureHook(str(tmp_path)), run_of(3)
    again.before_train(runner)
    steps(again, runner, 1)
    again.after_val_epoch(runner, {'accuracy/top1': 60.0})
    kept = json.loads((tmp_path / 'measured.json').read_text())
    assert list(kept['curve']) == ['1', '3'] and (kept['step'], kept['steps']) == (0.5, 3)


def test_a_new_run_forgets_what_lies_there(tmp_path, clock):
    (tmp_path / 'measured.json').write_text('{"curve": {"9": {}}, "peak": 99}')
    hook, runner = MeasureHook(str(tmp_path)), run_of(by_epoch=False)
    hook.before_train(runner)
    runner.iter = 40
    hook.after_val_epoch(runner, {})
    kept = json.loads((tmp_path / 'measured.json').read_text())
    assert kept == dict(curve={'40': {}}, unit='iteration', length=80, peak=7)


def grown():
    """How much higher the peak is after 64 MiB more were held."""
    measure._forget_peak()
    before = measure._peak()
    held = bytearray(64 * 2**20)
    held[::4096] = bytes([1]) * len(held[::4096])
    return measure._peak() - before


def test_the_peak_is_that_of_this_run():
    # a system that takes back idle pages of a large process may hide one growth, hardly three
    assert max(grown() for _ in range(3)) > 50 * 2**20
