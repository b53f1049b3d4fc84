"""Critics, a teacher that learns back and attacked images in real runs: resume, turns, two ranks."""

import pytest
import torch
from mmengine.config import Config
from test_pretraining import recipe
from two_ranks import after_steps, of_two_ranks

from mmkd.datasets.synthetic import write_folders
from mmkd.distiller import Distiller
from mmkd.engine.launch import build_runner, prepare
from mmkd.teacher import build_model
from mmkd.testing import classification_batch, tiny_classifier

STUDENT = tiny_classifier(4, 5)
PLAYERS = dict(
    teacher=dict(config=tiny_classifier(8, 5), checkpoint='random'),
    peers=dict(big=tiny_classifier(8, 5)),
    objectives=dict(
        logits=dict(type='mmkd.AdversarialLogits', teacher_name='teacher', critic=[8]),
        maps=dict(type='mmkd.FeatureGAN', teacher_name='teacher', width=8),
        game=dict(type='mmkd.KDGAN', teacher_name='big', width=8, relaxation=0.5),
        bss=dict(type='mmkd.BSS', teacher_name='teacher', samples=4, steps=2),
    ),
    preflight=dict(steps=0),
)


def train(folder, name, iterations, **more):
    """Weights lie in ``folder/name``."""
    model = dict(type='mmkd.Distiller', student=STUDENT, **PLAYERS)
    config = recipe(folder / 'data', folder / name, model).to_dict()
    config['train_cfg'] = dict(by_epoch=False, max_iters=iterations, val_interval=iterations)
    runner = build_runner(prepare(Config(config | more | dict(experiment_name=f'game_{name}'))))
    runner.train()


def test_a_resumed_run_repeats_the_uninterrupted_one(tmp_path):
    write_folders(tmp_path / 'data', 8, 5, size=(40, 36))
    train(tmp_path, 'whole', 4)
    train(tmp_path, 'half', 2)
    train(tmp_path, 'half', 4, resume=True)
    whole, half = (
        torch.load(tmp_path / name / 'iter_4.pth', weights_only=False) for name in ('whole', 'half')
    )
    players = {'student', 'peer.big', 'kd.logits', 'kd.maps', 'kd.game'}
    assert set(whole['optimizer']) == players
    first, second = whole['state_dict'], half['state_dict']
    assert first.keys() == second.keys()
    assert not [k for k, v in first.items() if not torch.equal(v, second[k])]
    plain = {k: v for k, v in first.items() if not k.startswith(('objectives.', 'peers.'))}
    build_model(STUDENT).load_state_dict(plain, strict=True)


TURNS = dict(objectives=dict(every=3), peers=dict(every=3, first=1), student=dict(every=3, first=2))


def one_rank(rank):
    """Everybody at once, and in turns."""
    found = {}
    for trains in (('student', 'objectives', 'peers'), TURNS):
        torch.manual_seed(0)
        model = Distiller(build_model(STUDENT), trains=trains, **_built()).train()
        batches = [classification_batch(4, (32, 32), seed=2 * step + rank) for step in range(2)]
        found |= {f'{type(trains)} {k}': p for k, p in after_steps(model, batches).items()}
    return found


def _built():
    return {**PLAYERS, 'preflight': False}


def test_two_ranks_agree(tmp_path):
    first, second = of_two_ranks(one_rank, tmp_path)
    assert first.keys() == second.keys()
    assert not [k for k in first if not torch.equal(first[k], second[k])]


@pytest.mark.parametrize('name', ['game', 'bss'])
def test_a_weight_that_begins_late_moves_nothing_before(name, running):
    """Neither random streams nor statistics."""
    running(0, 10)
    states = []
    for weight in (0, dict(value=1.0, start=5)):
        objectives = {name: PLAYERS['objectives'][name] | dict(weight=weight)}
        torch.manual_seed(0)
        model = Distiller(build_model(STUDENT), **_built() | dict(objectives=objectives)).train()
        model.loss(*classification_batch(4, (32, 32)))
        states.append((model.student.state_dict(), torch.rand(1)))
    (first, one), (second, other) = states
    assert torch.equal(one, other) and all(torch.equal(v, second[k]) for k, v in first.items())
