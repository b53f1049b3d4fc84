"""What the console shows of a run, which is the smallest there is."""

import io
from types import SimpleNamespace

import pytest
from console_toys import Checkpoints, finished
from mmengine.runner import Runner as StockRunner
from runner_toys import make

from mmkd.checks.preflight import PreflightHook
from mmkd.engine.console.hook import ConsoleHook
from mmkd.engine.console.screen import Screen

HOOKS = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=1),
    checkpoint=dict(type='CheckpointHook', interval=1),
)


def shown(folder, **changes):
    """The lines of a run of three epochs of two steps."""
    stream = io.StringIO()
    with Screen(stream):
        runner = make(folder, default_hooks=HOOKS, **changes)
        runner.register_hook(ConsoleHook())
        runner.train()
    return stream.getvalue().splitlines()


def test_a_run_and_its_resumption(tmp_path):
    lines = shown(tmp_path)
    steps = [line for line in lines if line.startswith('epoch')]
    assert [line.split('  ')[:2] for line in steps] == [
        [f'epoch {epoch}/3', f'step {step}/2'] for epoch in (1, 2, 3) for step in (1, 2)
    ]
    assert all('  eta 0:00:' in line and '  loss ' in line for line in steps)
    names = [line.split()[0] for line in lines if line not in steps]
    assert names == ['warning:', 'model', 'log', 'data', 'training', 'done', 'last']
    assert 'Data, 4 samples to train' in lines[3] and '3 epochs of 2 steps' in lines[4]
    assert lines[-1].endswith('epoch_3.pth')

    (tmp_path / 'epoch_3.pth').unlink()
    lines = shown(tmp_path, resume=True)
    steps = [line for line in lines if line.startswith('epoch')]
    assert [line.split('  ')[:2] for line in steps] == [
        ['epoch 3/3', 'step 1/2'],
        ['epoch 3/3', 'step 2/2'],
    ]
    (line,) = [line for line in lines if line.startswith('resumed ')]
    assert line.endswith('/epoch_2.pth, 4 of 6 steps are done')


def test_another_runner_than_ours_keeps_to_its_file(tmp_path):
    lines = shown(tmp_path, kind=StockRunner)
    assert not [line for line in lines if 'mmengine - INFO' in line]
    assert lines[-1].startswith('last ')


@pytest.mark.parametrize(('interval', 'due'), [(2, [2]), (5, [3])])
def test_lines_come_at_the_interval_of_the_log(tmp_path, interval, due):
    """By iteration: each second of three; by a longer interval than an epoch, at its end."""
    hook = ConsoleHook()
    hook.interval = interval
    runner = SimpleNamespace(train_dataloader=range(3))
    assert [i + 1 for i in range(3) if hook._is_due(runner, i)] == due


def test_a_validation_is_a_line_beside_the_teacher(tmp_path, monkeypatch):
    hook = ConsoleHook()
    hook.screen = Screen(io.StringIO())
    preflight = PreflightHook()
    preflight.scores['teacher'] = dict(mIoU=41.0)
    runner = finished(Checkpoints('mIoU'), preflight, best_ckpt='iter_8.pth', best_score=38.0)
    runner.train_loop = None
    for _ in range(2):
        hook.after_val_epoch(runner, dict(aAcc=80.0, mIoU=38.0, table=[1, 2]))
    assert hook.screen.stream.getvalue().splitlines() == [
        'validation after step 8: mIoU 38 (teacher 41)  aAcc 80  the best so far',
        'validation after step 8: mIoU 38 (teacher 41)  aAcc 80',
    ]
