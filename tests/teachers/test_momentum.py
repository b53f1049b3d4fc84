"""Momentum: the average, its ramp, what a run makes of it, and what a resumed run knows."""

import copy

import pytest
import torch
from teacher_toys import assert_same, check_resumes, train
from torch import nn

from mmkd.schedule import Progress
from mmkd.teachers import Momentum, build_teacher
from mmkd.testing import ToyNet


def moved(teacher, steps, dtype=torch.float64):
    """The single weight of a teacher that starts at 0, after each step of a student at 1."""
    student = nn.Linear(1, 1, bias=False).to(dtype)
    nn.init.zeros_(student.weight)
    teacher.meet(student)
    teacher.begin(student)
    nn.init.ones_(student.weight)
    found = []
    for i in range(steps):
        teacher.after_step(student, Progress(i, steps))
        found.append(float(teacher.model.weight))
    return found


def test_the_average():
    found = moved(Momentum(decay=0.9, ramp=False), 5)
    assert found == pytest.approx([0.1, 0.19, 0.271, 0.3439, 0.40951], abs=1e-9)


def test_the_ramp():
    teacher = Momentum()
    assert [teacher.rate(t) for t in range(5)] == pytest.approx([0.1, 2 / 11, 0.25, 4 / 13, 5 / 14])
    assert teacher.rate(10**6) == 0.999
    assert moved(teacher, 5) == pytest.approx([0.9, 0.981818, 0.995455, 0.998601, 0.9995], abs=1e-6)


def test_every_second_step():
    found = moved(Momentum(decay=0.9, ramp=False, every=2), 5)
    assert found == pytest.approx([0, 0.1, 0.1, 0.19, 0.19], abs=1e-9)


@pytest.mark.parametrize(('buffers', 'wanted'), [('copy', 4.0), ('average', 2.0)])
def test_buffers(buffers, wanted):
    student = nn.BatchNorm1d(1)
    teacher = Momentum(decay=0.5, ramp=False, buffers=buffers)
    teacher.meet(student)
    teacher.begin(student)
    student.running_mean.fill_(4.0)
    student.num_batches_tracked.fill_(7)
    teacher.after_step(student, Progress(0, 1))
    assert float(teacher.model.running_mean) == wanted
    assert int(teacher.model.num_batches_tracked) == 7


def test_decay_one_keeps_the_start():
    teacher, student = Momentum(decay=1), nn.BatchNorm1d(2)
    teacher.meet(student)
    student.weight.data.fill_(3.0)
    teacher.begin(student)
    student.weight.data.fill_(5.0)
    student.running_mean.fill_(5.0)
    teacher.after_step(student, Progress(0, 1))
    assert teacher.model.weight.tolist() == [3.0, 3.0]
    assert teacher.model.running_mean.tolist() == [0.0, 0.0]


def test_it_is_frozen_and_apart():
    student = ToyNet(norm='BN')
    teacher = Momentum()
    teacher.meet(student)
    assert not teacher.model.training and student.training
    assert not any(p.requires_grad for p in teacher.model.parameters())
    assert copy.deepcopy(teacher) is teacher


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(decay=1.1), 'decay must be a finite number from 0 to 1, found 1.1'),
        (dict(decay=-0.1), 'decay'),
        (dict(every=0), 'every'),
        (dict(buffers='keep'), "buffers must be one of \\['copy', 'average'\\]"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        build_teacher(dict(type='mmkd.Momentum', **options))


# ------------------------------------------------------------------------------------------ runs

TEACHER = dict(type='mmkd.Momentum', decay=0.9, ramp=False)


def weight_of(model):
    return model.teachers['teacher'].model.head.fc.weight.clone()


def test_it_starts_where_training_begins_and_moves_behind_the_step(tmp_path):
    train(tmp_path / 'first', steps=2, distils=False)
    start = torch.load(tmp_path / 'first' / 'iter_2.pth', weights_only=False)['state_dict']
    runner = train(
        tmp_path / 'second',
        teacher=TEACHER,
        load_from=str(tmp_path / 'first' / 'iter_2.pth'),
        look=lambda model: (weight_of(model), model.head.fc.weight.detach().clone()),
    )
    mean = start['head.fc.weight']
    for teacher, student in runner.watch.seen.values():
        mean = mean * 0.9 + 0.1 * student
        torch.testing.assert_close(teacher, mean, rtol=0, atol=1e-6)


def test_it_moves_only_with_the_optimiser(tmp_path):
    wrapper = dict(optimizer=dict(type='SGD', lr=0.05), accumulative_counts=3)
    runner = train(tmp_path, teacher=TEACHER, look=weight_of, optim_wrapper=wrapper)
    seen = list(runner.watch.seen.values())
    changed = [not torch.equal(a, b) for a, b in zip(seen, seen[1:], strict=False)]
    assert changed == [False, True, False, False, True, False, True]  # the last step is one, too
    assert runner.model.teachers['teacher'].moves == 3


def test_weight_zero_is_plain_training(tmp_path):
    objectives = dict(kd=dict(type='mmkd.KD', weight=0))
    distilled = train(tmp_path / 'kd', teacher=TEACHER, objectives=objectives)
    assert_same(distilled, train(tmp_path / 'plain', distils=False))


def test_an_interrupted_run_repeats_the_numbers(tmp_path):
    whole, again = check_resumes(tmp_path, 5, look=weight_of, teacher=TEACHER)
    for i, weight in again.watch.seen.items():
        assert torch.equal(weight, whole.watch.seen[i])


def test_it_is_in_the_checkpoint_and_not_in_the_student(tmp_path):
    train(tmp_path, teacher=TEACHER, steps=2)
    checkpoint = torch.load(tmp_path / 'iter_2.pth', weights_only=False)
    assert set(checkpoint['teachers']) == {'teacher'}
    assert not any('teacher' in key for key in checkpoint['state_dict'])


def test_an_ema_hook_averages_the_student_alone(tmp_path):
    hooks = [dict(type='EMAHook')]
    with_both = train(tmp_path / 'both', teacher=TEACHER, look=weight_of, hooks=hooks)
    alone = train(tmp_path / 'alone', teacher=TEACHER, look=weight_of)
    for i, weight in alone.watch.seen.items():
        assert torch.equal(weight, with_both.watch.seen[i])
