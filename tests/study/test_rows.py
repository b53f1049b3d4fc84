"""Rows, their runs and their commands."""

from dataclasses import replace

import pytest
from mmengine.config import Config

from mmkd.config import load_config
from mmkd.study.rows import (
    DISTILLED,
    TEACHER,
    Row,
    check_grid,
    differences,
    name_of,
    plain_of,
    teacher_key,
    with_grid,
)


@pytest.fixture
def row(paths):
    return Row(
        'KD', 'r101', DISTILLED, paths['student'], {'train_cfg.max_epochs': 1}, 'r101_teacher'
    )


def test_names_of_runs(row):
    assert row.run(3) == 'r101_KD_s3'
    assert Row('KD + AT, weight=0.1', '', DISTILLED, '').run(0) == 'KD_AT_weight_0_1_s0'
    assert Row(TEACHER, '', TEACHER, '').run(3) == 'teacher', 'all students have the same'


def test_a_run_is_a_stage(row):
    options = {'train_cfg.max_epochs': 1, 'randomness.seed': 3}
    assert row.stage(3) == dict(config=row.config, options=options, teacher='r101_teacher')
    config = row.read(3)
    assert (config.train_cfg.max_epochs, config.randomness.seed) == (1, 3)


def test_the_command_of_a_run(row):
    found = row.command(3, 'out')
    assert found == (
        f'mmkd train {row.config} --work-dir out/r101_KD_s3 --cfg-options randomness.seed=3 '
        'train_cfg.max_epochs=1 model.teacher.checkpoint=out/r101_teacher'
    )
    quoted = Row('a', '', DISTILLED, 'a.py', {'x': [1, 2]}).command(0, 'out')
    assert quoted.endswith('x="[1,2]"')
    other = replace(row, network='t.py', takes='folder').command(3, 'my out', ['--amp'])
    assert other == (
        f'mmkd train {row.config} --work-dir "my out/r101_KD_s3" --amp --cfg-options '
        'randomness.seed=3 train_cfg.max_epochs=1 model.teacher.folder="my out/r101_teacher" '
        'model.teacher.config=t.py'
    )


def test_the_plain_student_has_every_weight_at_0(row):
    config = row.read(0)
    config.model.objectives.at = dict(type='mmkd.AT')
    config.model.update(balance=0.3, task_weight=0.1)
    given = Row('KD', '', DISTILLED, 'a.py', {'model.objectives.kd.weight': 2, 'x': 1})
    assert plain_of(given, config).options == {
        'x': 1,
        'model.objectives.kd.weight': 0,
        'model.objectives.at.weight': 0,
        'model.balance': None,
        'model.task_weight': 1,
    }


def test_a_grid(row):
    config = load_config(row.config)
    grid = {'model.objectives.kd.weight': [0.1, 1], 'model.balance': [None, 0.3]}
    found = with_grid(row, grid | {'model.objectives.at.weight': [1]}, config)
    assert [one.name for one in found] == [
        'KD, weight=0.1',
        'KD, weight=0.1, balance=0.3',
        'KD, weight=1',
        'KD, weight=1, balance=0.3',
    ]
    assert found[1].options['model.balance'] == 0.3 and len(found[1].options) == 3
    check_grid(grid, [config])
    with pytest.raises(ValueError, match='of an objective that no method .* They have kd'):
        check_grid({'model.objectives.at.weight': [1]}, [config])


def test_what_two_runs_differ_in(row, paths):
    one = row.read(0)
    assert differences(one, row.read(1)) == [], 'a seed is no difference'
    assert differences(load_config(paths['plain']), one) == ['train_cfg.max_epochs']


def test_names_of_objectives_and_places_of_teachers():
    objectives = dict(a=dict(type='mmkd.KD'), b=dict(type='mmkd.AT'))
    teacher = dict(big=dict(config='t.py', checkpoint='t.pth'))
    config = Config(dict(model=dict(objectives=objectives, teacher=teacher)))
    assert name_of(config) == 'KD + AT' and teacher_key(config) == 'model.teacher.big'
