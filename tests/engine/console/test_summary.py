"""The end of a run: checkpoints, scores, cost, and what to type next."""

from types import SimpleNamespace

import pytest
from console_toys import Checkpoints, finished
from mmengine.evaluator import Evaluator

from mmkd.checks.preflight import PreflightHook
from mmkd.engine.console.summary import bests, summary
from mmkd.engine.overhead import OverheadHook
from mmkd.evaluation import Accuracy, Verification
from mmkd.trains import Trains


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


def test_what_was_trained_in_other_groups_has_a_line():
    runner = finished(last_ckpt='group_0/epoch_2.pth')
    teacher = SimpleNamespace(beside={'group 1': ({'top1': 62.0}, 'group_1/epoch_2.pth')})
    runner.model = SimpleNamespace(teachers=dict(teacher=teacher))
    rows = summary(runner, dict(top1=61.0), 1)
    assert ('last', 'top1 61  group_0/epoch_2.pth') in rows
    assert ('group 1', 'top1 62  group_1/epoch_2.pth') in rows


@pytest.mark.parametrize(
    'trains, untaught, metric, words',
    [
        ('student', ['head.fc.weight', 'head.fc.bias'], None, "the student's head.fc has not been"),
        ('student', ['head.fc.bias'], Accuracy(), "the student's head.fc has not been trained: "),
        ('objectives', [], None, 'the student has not been trained: start its training on the'),
        ('student', ['head.fc.bias'], Verification(), ''),
        ('student', [], None, ''),
    ],
)
def test_a_network_with_an_untrained_head_is_not_scored(
    tmp_path, monkeypatch, trains, untaught, metric, words
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'work').mkdir()
    (tmp_path / 'work' / 'c.py').touch()
    monkeypatch.setattr('sys.argv', ['mmkd', 'train', 'c.py'])
    runner = finished(last_ckpt='work/epoch_2.pth')
    config = dict(test_dataloader='a loader')
    runner.cfg.get = config.get
    plan = SimpleNamespace(trains=Trains.of(trains), untaught=untaught)
    runner.model = SimpleNamespace(plan=plan, teachers={})
    runner.val_loop = metric and SimpleNamespace(evaluator=Evaluator(metric))
    (text,) = (text for name, text in summary(runner, {}, 1) if name == 'next')
    if words:
        assert text.startswith(words) and text.endswith('--cfg-options load_from=work/epoch_2.pth')
    else:
        assert text == 'mmkd test work/c.py work/epoch_2.pth'
    config['load_from'] = 'trained.pth'
    assert summary(runner, {}, 1)[-1][1] == 'mmkd test work/c.py work/epoch_2.pth'
