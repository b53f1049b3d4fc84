"""What the console shows of a run, which is the smallest there is."""

import io
from types import SimpleNamespace

import pytest
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner as StockRunner
from runner_toys import make

from mmkd.checks.preflight import PreflightHook
from mmkd.engine.console.hook import ConsoleHook
from mmkd.engine.console.screen import Screen
from mmkd.engine.console.summary import bests, summary
from mmkd.engine.overhead import OverheadHook

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


class Checkpoints(CheckpointHook):
    def __init__(self, *keys):
        self.key_indicators = list(keys)


def finished(*hooks, **info):
    """A Runner after its last step."""
    return SimpleNamespace(
        hooks=hooks,
        message_hub=SimpleNamespace(runtime_info=info),
        iter=8,
        max_iters=8,
        cfg=SimpleNamespace(filename='c.py', get=lambda key: 'a loader'),
        work_dir='work',
    )


def test_the_summary(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'work').mkdir()
    (tmp_path / 'work' / 'c.py').touch()
    monkeypatch.setattr('sys.argv', ['/venv/bin/mmkd', 'train', 'c.py'])
    preflight, cost = PreflightHook(), OverheadHook()
    preflight.scores['teacher'] = dict(mIoU=41.0)
    cost.measured = 'cost: 60 ms a step'
    files = dict(best_ckpt='work/best.pth', best_score=39.5, last_ckpt='work/iter_8.pth')
    runner = finished(Checkpoints('mIoU'), preflight, cost, **files)
    assert summary(runner, dict(aAcc=80.0, mIoU=38.0), 61) == [
        ('done', '8 of 8 steps, 0:01:01'),
        ('best', 'mIoU 39.5  work/best.pth'),
        ('last', 'mIoU 38  work/iter_8.pth'),
        ('teacher', 'mIoU 41'),
        ('cost', '60 ms a step'),
        ('next', 'mmkd test work/c.py work/best.pth'),
    ]


def test_the_summary_of_a_run_that_knows_nothing():
    assert summary(finished(), {}, 1) == [
        ('done', '8 of 8 steps, 0:00:01'),
        ('cost', ''),
        ('next', ''),
    ]


def test_several_metrics_choose_a_checkpoint_each():
    runner = finished(
        Checkpoints('mIoU', 'mAcc'),
        best_ckpt_mIoU='a.pth',
        best_score_mIoU=1.0,
        best_ckpt_mAcc='b.pth',
        best_score_mAcc=2.0,
    )
    assert bests(runner) == dict(mIoU=('a.pth', 1.0), mAcc=('b.pth', 2.0))
    rows = [text for name, text in summary(runner, {}, 1) if name == 'best']
    assert [row.split()[:2] for row in rows] == [['mIoU', '1'], ['mAcc', '2']]
    assert bests(finished(Checkpoints('auto'))) == {}


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
