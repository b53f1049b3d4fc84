"""Runs in which somebody does not train: what moves, what runs, what is saved and said."""

import copy
from pathlib import Path

import pytest
import torch
from recipes import MODELS, distilled, recipe, run

from mmkd.engine.launch import build_runner, prepare
from mmkd.teacher import build_model

KA = dict(type='mmkd.KA', phase='autoencoder')
CRITIC = dict(type='mmkd.SKDHolistic', width=8)


def config_of(folder, work_dir, objectives, iterations=4, **model):
    changes = dict(train_cfg=dict(val_interval=iterations))
    whole = {**distilled('pspnet', **model), 'objectives': objectives}
    config = recipe('pspnet', folder, work_dir, whole, iterations, **changes)
    config.log_level = 'INFO'
    return config


def train(config, before=lambda runner: None):
    runner = build_runner(prepare(config))
    before(runner)
    start = copy.deepcopy(runner.model.state_dict())
    losses, _ = run(runner)
    return runner, losses, start


def moved(before, after):
    return {key for key in before if not torch.equal(before[key], after[key])}


def text_of(work_dir):
    return next(Path(work_dir).glob('*/*.log')).read_text()


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return tmp_path_factory.mktemp('trains') / 'data'


@pytest.fixture(scope='module')
def alone(data, tmp_path_factory):
    """A run of the auto-encoder alone, in whose steps the student must not run."""
    folder = tmp_path_factory.mktemp('alone')
    config = config_of(data, folder, dict(ka=KA), trains='objectives', preflight=dict(steps=3))
    config.model.student.init_cfg = None

    def forbid(runner):
        def never(*args):
            assert not runner.model.training, 'the student runs in a training step'

        runner.model.student.backbone.register_forward_pre_hook(never)

    return folder, *train(config, forbid)


def test_the_student_neither_runs_nor_moves(alone):
    folder, runner, losses, _ = alone
    saved = torch.load(folder / 'iter_4.pth', weights_only=False)
    early = torch.load(folder / 'iter_2.pth', weights_only=False)['state_dict']
    found = moved(early, saved['state_dict'])
    assert found and all(key.startswith('objectives.') for key in found)
    assert all(set(step) == {'loss'} for step in losses)
    plain = {k: v for k, v in saved['state_dict'].items() if not k.startswith('objectives.')}
    build_model(MODELS['pspnet']()).load_state_dict(plain, strict=True)


def test_it_has_no_optimiser(alone):
    folder, runner, *_ = alone
    own = {id(p) for p in runner.model.objectives.parameters()}
    groups = runner.optim_wrapper.param_groups
    assert {id(p) for group in groups for p in group['params']} == own
    assert not any(p.requires_grad for p in runner.model.student.parameters())


def test_the_log_says_who_trains_and_that_validation_shows_nothing(alone):
    text = text_of(alone[0])
    assert 'trains: objectives' in text
    assert 'so every validation gives the score with which it started' in text
    assert 'mIoU' in text, 'and it is validated all the same'
    assert "objective 'ka' is live" in text and 'got no gradient' not in text


def test_resuming_repeats_it(alone, data, tmp_path):
    folder, runner, losses, _ = alone
    (tmp_path / 'iter_2.pth').write_bytes((folder / 'iter_2.pth').read_bytes())
    config = config_of(data, tmp_path, dict(ka=KA), trains='objectives', preflight=dict(steps=3))
    config.resume = True
    again, same, _ = train(config)
    assert same == losses[2:]
    assert not moved(runner.model.state_dict(), again.model.state_dict())


def test_a_tapped_student_at_rest_runs_in_eval_mode(data, tmp_path):
    """The critic alone, which has an optimiser of its own: the student's has nothing to do."""
    config = config_of(data, tmp_path, dict(critic=CRITIC), trains=['objectives'])
    modes = []

    def watch(runner):
        student = runner.model.student
        student.backbone.register_forward_hook(
            lambda *_: modes.append((student.backbone.training, torch.is_grad_enabled()))
        )

    runner, losses, start = train(config, watch)
    assert modes[:4] == [(False, False)] * 4
    assert runner.model.student.training is False or runner.model.student.backbone.training
    saved = [torch.load(tmp_path / f'iter_{i}.pth', weights_only=False) for i in (2, 4)]
    found = moved(*(one['state_dict'] for one in saved))
    assert found and all(key.startswith('objectives.critic.') for key in found)
    assert saved[1]['optimizer']['student']['param_groups'][0]['params'] == [0]
    assert not saved[1]['optimizer']['student']['state']


def test_turns(data, tmp_path):
    """Student in steps 0, 2, critic in 1, 3: a rest is without decay and momentum."""
    turns = dict(student=dict(every=2), objectives=dict(every=2, first=1))
    config = config_of(data, tmp_path, dict(critic=CRITIC), trains=turns)
    config.optim_wrapper.optimizer.weight_decay = 0.1
    config.default_hooks.checkpoint.interval = 1
    names = dict(train(config)[0].model.named_parameters())  # statistics move with what is seen
    states = [torch.load(tmp_path / f'iter_{i}.pth', weights_only=False) for i in (1, 2, 3, 4)]
    for i, (old, new) in enumerate(zip(states, states[1:], strict=False)):
        found = moved(old['state_dict'], new['state_dict']) & set(names)
        who = {key.startswith('objectives.') for key in found}
        assert who == {i % 2 == 0}, (i, found)
    momenta = [one['optimizer']['student']['state'][0]['momentum_buffer'] for one in states]
    assert torch.equal(momenta[0], momenta[1]) and not torch.equal(momenta[1], momenta[2])
    assert 'trains: student in step 0 of 2, objectives in step 1 of 2' in text_of(tmp_path)


def test_all_the_time_is_no_turn(data, tmp_path):
    """trains with everybody, in any form, is the run without it, bit for bit."""
    weights = []
    for i, entry in enumerate([{}, dict(trains=dict(student=dict(every=1), objectives=True))]):
        config = config_of(data, tmp_path / f'{i}', dict(critic=CRITIC), 2, **entry)
        runner, losses, _ = train(config)
        weights.append((losses, runner.model.state_dict()))
    assert weights[0][0] == weights[1][0] and not moved(weights[0][1], weights[1][1])


def test_objectives_that_rest_are_constants(data, tmp_path):
    objective = dict(type='mmkd.CWD', student='backbone[-1]', teacher='backbone[-1]')
    config = config_of(data, tmp_path, dict(cwd=objective), trains='student')
    train(config)
    saved = [torch.load(tmp_path / f'iter_{i}.pth', weights_only=False) for i in (2, 4)]
    found = moved(*(one['state_dict'] for one in saved))
    assert found and not any(key.startswith('objectives.') for key in found)


def test_without_its_own_losses_the_student_learns_as_far_as_its_taps(data, tmp_path):
    """Up to layer2: the rest gets neither gradient nor decay, and its heads do not even run."""
    tap = 'backbone.layer2'
    objective = dict(type='mmkd.FitNet', student=tap, teacher=tap)
    config = config_of(data, tmp_path, dict(hint=objective), task_weight=None)
    config.optim_wrapper.optimizer.weight_decay = 0.1

    def forbid(runner):
        def never(*args):
            assert not runner.model.training, 'the head runs in a training step'

        runner.model.student.decode_head.register_forward_pre_hook(never)

    runner, losses, _ = train(config, forbid)
    saved = [torch.load(tmp_path / f'iter_{i}.pth', weights_only=False) for i in (2, 4)]
    found = {k for k in moved(*(one['state_dict'] for one in saved)) if 'running' not in k}
    found = {k for k in found if 'num_batches' not in k}
    learnt = ('backbone.stem', 'backbone.layer1', 'backbone.layer2', 'objectives.')
    assert found and all(key.startswith(learnt) for key in found)
    assert any(key.startswith('backbone.layer2') for key in found)
    text = text_of(tmp_path)
    assert 'behind the taps of the student, and so not trained: backbone.layer3' in text
    assert 'times the task loss' not in text and 'got no gradient' not in text
    assert all(set(step) == {'loss'} for step in losses)


def test_it_equals_a_factor_of_0_where_everything_else_is_the_same(data, tmp_path):
    """The same taught weights as with task_weight=0, whose losses are computed for nothing."""
    tap = 'backbone.layer2'
    weights = []
    for i, factor in enumerate([0, None]):
        objective = dict(type='mmkd.FitNet', student=tap, teacher=tap)
        work = tmp_path / f'{i}'
        config = config_of(data, work, dict(hint=objective), task_weight=factor)
        weights.append(train(config)[0].model.state_dict())
    taught = [k for k in weights[0] if k.startswith(('backbone.layer1', 'backbone.layer2', 'obj'))]
    assert taught and not moved(*({k: one[k] for k in taught} for one in weights))


def test_a_peer_that_rests_teaches_in_eval_mode(data, tmp_path):
    """It has no optimiser, and neither its weights nor its statistics move."""
    objective = dict(type='mmkd.CWD', teacher_name='other')
    both = ['student', 'objectives']
    peers = dict(other=MODELS['pspnet'](width=8))
    config = config_of(data, tmp_path, dict(down=objective), trains=both, peers=peers)
    modes = []

    def watch(runner):
        peer = runner.model.peers['other']
        peer.backbone.register_forward_hook(
            lambda *_: modes.append((peer.backbone.training, torch.is_grad_enabled()))
        )

    runner, losses, _ = train(config, watch)
    assert modes == [(False, False)] * 4 and 'peer.other.decode.loss_ce' not in losses[0]
    saved = [torch.load(tmp_path / f'iter_{i}.pth', weights_only=False) for i in (2, 4)]
    found = moved(*(one['state_dict'] for one in saved))
    assert found and not any(key.startswith('peers.') for key in found)
    assert 'param_groups' in saved[1]['optimizer'], 'the only one'
