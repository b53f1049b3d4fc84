"""A critic beside the student in real runs: checkpoint, resume, EMA, rates, the stock Runner."""

import copy
import re
from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner as StockRunner
from recipes import MODELS, distilled, recipe, run

from mmkd.engine.launch import build_runner, prepare
from mmkd.teacher import build_model

SCHEDULE = [
    dict(type='LinearLR', start_factor=0.5, by_epoch=False, begin=0, end=2),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=0.1,
        begin=0,
        end=1,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
CRITIC = 'objectives.skd_holistic.critic.'


def config_of(folder, work_dir, **changes):
    model = distilled('pspnet')
    model['objectives'] = dict(
        skd_pixel=dict(type='mmkd.SKDPixel'), skd_holistic=dict(type='mmkd.SKDHolistic', width=8)
    )
    changes.setdefault('param_scheduler', copy.deepcopy(SCHEDULE))
    hooks = [dict(type='EMAHook'), dict(type='mmkd.OverheadHook', warmup=1, steps=1)]
    config = recipe('pspnet', folder / 'data', work_dir, model, custom_hooks=hooks, **changes)
    config.log_level = 'INFO'
    return config


def log_of(work_dir):
    return next(Path(work_dir).glob('*/*.log')).read_text()


def train(config):
    runner = build_runner(prepare(config))
    losses, _ = run(runner)
    return losses, runner.model.state_dict()


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Folder of a run of four steps, its losses and final weights."""
    folder = tmp_path_factory.mktemp('critic')
    return folder, *train(config_of(folder, folder / 'run'))


def test_the_critic_is_in_the_checkpoint_and_not_in_the_student(trained):
    folder, _, weights = trained
    checkpoint = torch.load(folder / 'run' / 'iter_4.pth', weights_only=False)
    state = checkpoint['state_dict']
    plain = {k: v for k, v in state.items() if not k.startswith('objectives.')}
    build_model(MODELS['pspnet']()).load_state_dict(plain, strict=True)
    assert {k for k in state if k not in plain} == {k for k in weights if k.startswith(CRITIC)}
    assert set(checkpoint['optimizer']) == {'student', 'kd.skd_holistic'}
    assert checkpoint['optimizer']['kd.skd_holistic']['state'], 'momentum'
    early = torch.load(folder / 'run' / 'iter_2.pth', weights_only=False)['ema_state_dict']
    key = f'{CRITIC}layers.0.bias'
    assert not torch.equal(early[f'module.{key}'], weights[key]), 'the critic was trained'


def test_both_follow_the_schedule_each_from_its_own_rate(trained):
    folder, *_ = trained
    text = log_of(folder / 'run')
    rates = re.findall(r'\blr: (\S+) kd\.skd_holistic\.lr: (\S+)', text)
    assert len(rates) == 4
    found = [(float(a), float(b)) for a, b in rates]
    assert len({a for a, _ in found}) == 4
    for student, critic in found:
        assert critic / student == pytest.approx(4e-4 / 0.01, rel=1e-3)


def test_the_log_says_what_it_does_and_what_it_costs(trained):
    text = log_of(trained[0] / 'run')
    assert 'with an optimiser of its own: SGD lr 0.0004, momentum 0.9' in text
    assert re.search(r'cost: \d+ ms a step', text)
    assert 'SKDHolistic enlarges logits of 8 x 12 to 64 x 96.' in text
    assert 'kd.skd_holistic.loss_critic' in text and 'kd.skd_holistic.score_teacher' in text


def test_resuming_repeats_the_uninterrupted_run(trained, tmp_path):
    folder, losses, weights = trained
    (tmp_path / 'iter_2.pth').write_bytes((folder / 'run' / 'iter_2.pth').read_bytes())
    config = config_of(folder, tmp_path)
    config.resume = True
    again, same = train(config)
    assert again == losses[2:]
    assert weights.keys() == same.keys()
    assert all(torch.equal(weights[k], same[k]) for k in weights)


@pytest.mark.parametrize('critic', [True, False])
def test_resuming_needs_the_same_optimisers(trained, tmp_path, critic):
    """A critic that the checkpoint has not, and one that only the checkpoint has."""
    checkpoint = torch.load(trained[0] / 'run' / 'iter_2.pth', weights_only=False)
    config = config_of(trained[0], tmp_path)
    if critic:
        checkpoint['optimizer'] = checkpoint['optimizer']['student']
    else:
        del config.model.objectives.skd_holistic
    torch.save(checkpoint, tmp_path / 'iter_2.pth')
    config.resume = True
    names = ['student, kd.skd_holistic', 'one for all']
    found, wanted = reversed(names) if critic else names
    with pytest.raises(ValueError, match=f'checkpoint are {found}, those of this run {wanted}'):
        train(config)


def test_a_floor_of_the_rates_is_the_student_s(trained, tmp_path):
    floor = [dict(type='PolyLR', eta_min=5e-3, begin=0, end=2, by_epoch=False)]
    train(config_of(trained[0], tmp_path, param_scheduler=floor))
    rates = re.findall(r'\blr: (\S+) kd\.skd_holistic\.lr: (\S+)', log_of(tmp_path))
    assert [float(rate) for rate in rates[-1]] == pytest.approx([5e-3, 2e-4])


def test_a_schedule_for_each(trained, tmp_path):
    schedules = {
        'student': copy.deepcopy(SCHEDULE),
        'kd.skd_holistic': [dict(type='ConstantLR', factor=0.1, by_epoch=False, end=100)],
    }
    config = config_of(trained[0], tmp_path, param_scheduler=schedules)
    config.train_cfg.max_iters = 1
    train(config)
    (rate,) = re.findall(r'kd\.skd_holistic\.lr: (\S+)', log_of(tmp_path))
    assert float(rate) == pytest.approx(4e-5)


def test_the_stock_runner_is_refused(trained, tmp_path):
    config = prepare(config_of(trained[0], tmp_path))
    with pytest.raises(RuntimeError, match='optimiser of its own, but another one has its param'):
        StockRunner.from_cfg(config).train()
