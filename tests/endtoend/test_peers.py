"""A peer beside the student in real runs: parity, checkpoints, resume, its score, two ranks."""

import copy
from functools import partial

import pytest
import torch
from mmengine.runner import Runner as StockRunner
from recipes import MODELS, recipe, run
from two_ranks import after_steps, of_two_ranks, uneven

from mmkd.checkpoint import CheckpointError
from mmkd.checkpoint.extract import extract
from mmkd.distiller import Distiller
from mmkd.engine import launch
from mmkd.engine.launch import build_runner, prepare
from mmkd.teacher import build_model, load_strictly
from mmkd.testing import tiny_faster_rcnn

KINDS = ('frcnn', 'pspnet')


def mutual(kind, **options):
    """Two networks of one family that teach each other by KD."""
    kd = partial(dict, type='mmkd.KD', tau=1, **options)
    return dict(
        type='mmkd.Distiller',
        student=MODELS[kind](),
        peers=dict(other=MODELS[kind](width=4)),
        objectives=dict(
            down=kd(teacher_name='other'), up=kd(learner='other', teacher_name='student')
        ),
    )


def config_of(kind, folder, work_dir, model, **changes):
    hooks = [dict(type='EMAHook'), dict(type='mmkd.OverheadHook', warmup=1, steps=1)]
    changes.setdefault('custom_hooks', hooks)
    config = recipe(kind, folder / 'data', work_dir, model, **changes)
    config.optim_wrapper.clip_grad = dict(max_norm=1.0)
    return config


@pytest.fixture(scope='module', params=KINDS)
def trained(request, tmp_path_factory):
    """Kind, folder, curve and final weights of a run of four steps."""
    folder = tmp_path_factory.mktemp(request.param)
    config = config_of(request.param, folder, folder / 'run', mutual(request.param))
    config.log_level = 'INFO'
    runner = build_runner(prepare(config))
    curve, _ = run(runner)
    return request.param, folder, curve, copy.deepcopy(runner.model.state_dict())


def test_at_weight_zero_the_student_is_that_of_stock_training(trained, tmp_path):
    kind, folder, curve, mutually = trained
    stock = config_of(kind, folder, tmp_path / 'stock', None, custom_hooks=[])
    expected, weights = run(StockRunner.from_cfg(stock))
    config = config_of(kind, folder, tmp_path / 'kd', mutual(kind, weight=0), custom_hooks=[])
    losses, state = run(build_runner(prepare(config)))
    own = [key for key in expected[0] if key != 'loss']
    assert [{k: step[k] for k in own} for step in losses] == [
        {k: step[k] for k in own} for step in expected
    ]
    assert all(torch.equal(state[k], v) for k, v in weights.items())
    assert any(k.startswith('peer.other.') for k in losses[0]), 'the peer trains meanwhile'
    others = {k: v for k, v in state.items() if k.startswith('peers.')}
    for found in (weights, others):
        assert any(not torch.equal(mutually[k], v) for k, v in found.items()), 'KD moves both'


def test_resuming_repeats_the_uninterrupted_run(trained, tmp_path):
    kind, folder, curve, weights = trained
    (tmp_path / 'iter_2.pth').write_bytes((folder / 'run' / 'iter_2.pth').read_bytes())
    config = config_of(kind, folder, tmp_path, mutual(kind))
    config.resume = True
    runner = build_runner(prepare(config))
    again, _ = run(runner)
    assert again == curve[2:]
    same = runner.model.state_dict()
    assert weights.keys() == same.keys()
    assert all(torch.equal(weights[k], same[k]) for k in weights)


def test_resuming_needs_the_same_peers(trained, tmp_path):
    kind, folder, *_ = trained
    (tmp_path / 'iter_2.pth').write_bytes((folder / 'run' / 'iter_2.pth').read_bytes())
    config = config_of(kind, folder, tmp_path, MODELS[kind]())
    config.resume = True
    with pytest.raises(ValueError, match='optimisers of the checkpoint are student, peer.other'):
        build_runner(prepare(config)).train()


def test_a_checkpoint_is_a_plain_student_and_a_plain_peer(trained, tmp_path):
    kind, folder, *_ = trained
    file = str(folder / 'run' / 'iter_2.pth')
    checkpoint = torch.load(file, weights_only=False)
    assert set(checkpoint['optimizer']) == {'student', 'peer.other'}
    names = ('peers.other.random_state',)
    assert all(n in checkpoint['random_state']['ranks'][0]['modules'] for n in names)
    plain = {k: v for k, v in checkpoint['state_dict'].items() if not k.startswith('peers.')}
    build_model(MODELS[kind]()).load_state_dict(plain, strict=True)
    student, peer = build_model(MODELS[kind]()), build_model(MODELS[kind](width=4))
    load_strictly(student, file)
    load_strictly(peer, file, network='peers.other')
    key = next(k for k in plain if k.endswith('conv1.weight'))
    assert torch.equal(student.state_dict()[key], plain[key])
    wanted = checkpoint['state_dict'][f'peers.other.{key}']
    assert torch.equal(peer.state_dict()[key], wanted)
    extract(file, str(tmp_path / 'other.pth'), 'peers.other.')
    load_strictly(build_model(MODELS[kind](width=4)), str(tmp_path / 'other.pth'))
    with pytest.raises(
        CheckpointError, match="no network 'peers.x'; it holds student, peers.other"
    ):
        load_strictly(peer, file, network='peers.x')


def test_a_peer_is_scored_as_a_plain_student(trained, tmp_path):
    kind, folder, *_ = trained
    file = str(folder / 'run' / 'iter_4.pth')
    config = config_of(kind, folder, tmp_path / 'test', mutual(kind), custom_hooks=[])
    scores = {
        w: launch.test(copy.deepcopy(config), file, who=w) for w in ('student', 'peers.other')
    }
    assert scores['student'].keys() == scores['peers.other'].keys()
    with pytest.raises(ValueError, match="no network 'peers.x' in this config; it has student, pe"):
        launch.test(copy.deepcopy(config), file, who='peers.x')
    plain = config_of(kind, folder, tmp_path / 'plain', None, custom_hooks=[])
    with pytest.raises(ValueError, match="trains one model, so it has no network 'peers.other'"):
        launch.test(plain, file, who='peers.other')


def test_the_log_counts_the_peer(trained):
    text = next((trained[1] / 'run').glob('*/*.log')).read_text()
    assert 'peer other: ' in text and '  peer.other.' in text and 'peer.other.grad_norm' in text
    assert 'peer.other.lr: ' in text and ' ms peers, ' in text and 'weights of peers' in text


def one_rank(rank):
    """One objective rests."""
    torch.manual_seed(0)
    kd = partial(dict, type='mmkd.KD', tau=1)
    objectives = dict(
        down=kd(teacher_name='other', weight=dict(start=5)),
        up=kd(learner='other', teacher_name='student'),
    )
    peers = dict(other=tiny_faster_rcnn(8))
    model = Distiller(tiny_faster_rcnn(4), objectives, peers=peers, preflight=False).train()
    return after_steps(model, uneven(rank))


def test_two_ranks_agree(tmp_path):
    first, second = of_two_ranks(one_rank, tmp_path)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[k], second[k]) for k in first)
