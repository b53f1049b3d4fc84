"""Snapshot: boundaries, the teacher between them, and what a resumed run knows."""

import pytest
import torch
from mmengine.optim.scheduler import CosineRestartLR
from teacher_toys import assert_same, check_resumes, make, train
from torch import nn

from mmkd.teachers import Snapshot, build_teacher
from mmkd.teachers.snapshot import boundaries

COSINE = dict(
    type='CosineRestartLR', periods=[4, 4], restart_weights=[1, 1], eta_min=0, by_epoch=False
)
TEACHER = dict(type='mmkd.Snapshot', cycles=2)


def weight_of(model):
    return model.teachers['teacher'].model.head.fc.weight.clone(), model.head.fc.weight.clone()


@pytest.mark.parametrize(
    ('cycles', 'total', 'wanted'),
    [(1, 100, []), (2, 100, [50]), (3, 100, [34, 67]), (4, 10, [3, 5, 8]), (4, 4, [1, 2, 3])],
)
def test_boundaries_are_rounded_up(cycles, total, wanted):
    assert boundaries(cycles, total) == wanted


def test_rate_of_the_sheet():
    parameter = nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    options = {k: v for k, v in COSINE.items() if k != 'type'}
    scheduler = CosineRestartLR(optimizer, **options | dict(periods=[100, 100]))
    rates = []
    for _ in range(101):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        scheduler.step()
    found = [rates[i] for i in (0, 50, 99, 100)]
    assert found == pytest.approx([0.1, 0.05, 0.000025, 0.1], abs=1e-6)


def test_boundaries_of_ones_own():
    assert Snapshot(at=[0.25, 0.5]).boundaries(10) == [3, 5]
    assert Snapshot(at=[3, 5]).boundaries(10) == [3, 5]


def test_the_teacher_is_the_student_of_the_last_boundary(tmp_path):
    runner = train(
        tmp_path, teacher=dict(TEACHER, cycles=4), look=weight_of, param_scheduler=[COSINE]
    )
    seen = runner.watch.seen
    for end, rest in ((1, (2,)), (3, (4,)), (5, (6, 7))):  # steps, from 0
        for i in (end, *rest):
            assert torch.equal(seen[i][0], seen[end][1])
        assert not torch.equal(seen[rest[0]][0], seen[rest[0]][1])


def test_before_the_first_boundary_objectives_rest(tmp_path):
    plain = train(tmp_path / 'plain', distils=False)
    runner = train(tmp_path / 'snap', teacher=TEACHER)
    losses = runner.watch.losses
    for i in range(4):
        assert 'kd.kd.loss' not in losses[i]
        assert losses[i]['loss'] == plain.watch.losses[i]['loss']
    assert losses[4]['kd.kd.loss'] >= 0 and 'kd.kd.loss' in losses[7]


def test_one_cycle_is_plain_training(tmp_path):
    runner = train(tmp_path / 'snap', teacher=dict(TEACHER, cycles=1))
    assert_same(train(tmp_path / 'plain', distils=False), runner)


@pytest.mark.parametrize('at', [2, 4, 6])
def test_an_interrupted_run_repeats_the_numbers(tmp_path, at):
    whole, again = check_resumes(tmp_path, at, look=weight_of, teacher=TEACHER)
    for i, (weight, _) in again.watch.seen.items():
        if i >= 4:
            assert torch.equal(weight, whole.watch.seen[i][0])


def test_averages_of_an_ema_hook_never_enter(tmp_path):
    hooks = [dict(type='EMAHook')]
    one = train(tmp_path / 'a', teacher=TEACHER, look=weight_of, hooks=hooks)
    other = train(tmp_path / 'b', teacher=TEACHER, look=weight_of)
    assert torch.equal(one.watch.seen[7][0], other.watch.seen[7][0])


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(), 'needs one of cycles='),
        (dict(cycles=2, at=[0.5]), 'needs one of cycles='),
        (dict(cycles=0), 'cycles must be a whole number of at least 1'),
        (dict(at=0.5), 'at must be a list, found 0.5'),
        (dict(at='half'), "at must be a list, found 'half'"),
        (dict(at=[0]), 'at must be a finite number above 0'),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        build_teacher(dict(type='mmkd.Snapshot', **options))


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(cycles=9), 'cycles=9, but the run has 8 steps'),
        (dict(at=[0.5, 0.25]), r'means steps \[4, 2\] of a run of 8'),
        (dict(at=[8]), 'lie between 0 and 8'),
    ],
)
def test_cycles_that_do_not_fit_the_run(tmp_path, options, words):
    runner = make(tmp_path, teacher=dict(type='mmkd.Snapshot', **options))
    with pytest.raises(ValueError, match=f"teacher 'teacher': Snapshot: .*{words}"):
        runner.train()
    assert not runner.watch.losses


def test_a_rate_that_does_not_restart_is_reported(tmp_path):
    for name, scheduler in dict(constant=None, cosine=[COSINE]).items():
        folder = tmp_path / name
        train(folder, teacher=TEACHER, log_level='WARNING', param_scheduler=scheduler)
    constant, cosine = (
        next((tmp_path / name).rglob('*.log')).read_text() for name in ('constant', 'cosine')
    )
    assert 'does not restart at step 4' in constant
    assert 'does not restart' not in cosine
