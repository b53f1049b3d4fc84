"""EMA, gradient accumulation and tools/test.py, around a Distiller as around a plain model."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from recipes import distilled, python_path, recipe

from mmkd.engine.launch import train
from mmkd.schedule import ACCUMULATION
from mmkd.teacher import build_model

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def averaged(tmp_path_factory):
    """A finished run with an average of the weights and two batches a step; and its folder."""
    folder = tmp_path_factory.mktemp('averaged')
    config = recipe('retinanet', folder / 'data', folder / 'out', distilled('retinanet'))
    config.custom_hooks = [dict(type='EMAHook', momentum=0.5)]
    config.optim_wrapper.accumulative_counts = 2
    config.model.objectives.kd.weight = dict(value=0.01, every=2, first=1)
    config.pop('experiment_name')
    config.dump(folder / 'config.py')
    return train(config), folder


def test_the_average_is_of_student_and_adapters_and_of_no_teacher(averaged):
    runner, folder = averaged
    saved = torch.load(folder / 'out' / 'iter_4.pth', weights_only=False)
    plain = set(build_model(runner.cfg.model.student).state_dict())
    own = {k for k in saved['state_dict'] if not k.startswith('objectives.')}
    assert own == plain
    average = {k.removeprefix('module.') for k in saved['ema_state_dict']} - {'steps'}
    assert average == set(saved['state_dict'])
    key = 'bbox_head.retina_cls.weight'
    current = runner.model.state_dict()[key]
    assert torch.equal(saved['ema_state_dict'][f'module.{key}'], current)
    assert not torch.equal(saved['state_dict'][key], current), 'the file holds the average'
    build_model(runner.cfg.model.student).load_state_dict(
        {k: saved['state_dict'][k] for k in plain}, strict=True
    )


def test_turns_count_steps_of_the_optimiser(averaged):
    """Two batches a step: the second step of two is the third and fourth iteration."""
    runner, _ = averaged
    values = runner.message_hub.get_scalar('train/kd.kd.loss').data[0]
    assert [value > 0 for value in values] == [False, False, True, True]
    assert runner.message_hub.get_info(ACCUMULATION) == 2


def test_the_average_is_scored_from_the_command_line(averaged):
    _, folder = averaged
    environment = dict(os.environ, PYTHONPATH=python_path(ROOT), OMP_NUM_THREADS='1')
    command = [sys.executable, str(ROOT / 'tools' / 'test.py'), 'config.py', 'out/iter_4.pth']
    done = subprocess.run(
        [*command, '--work-dir', 'scores'],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
