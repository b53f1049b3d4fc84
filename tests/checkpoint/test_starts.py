"""Weights to start from are looked for before anything is built for nothing."""

import pytest
import torch
from chain_toys import recipe
from mmengine.model import BaseModule

from mmkd.chain import Chain
from mmkd.checkpoint import CheckpointError, check_start, check_starts
from mmkd.commands import plan
from mmkd.config import load_config
from mmkd.engine.launch import build_runner, prepare
from mmkd.testing import tiny_classifier

MISSING = dict(type='Pretrained', checkpoint='nowhere.pth')


def module(**parts):
    found = BaseModule(parts.pop('init', None))
    for name, part in parts.items():
        found.add_module(name, part)
    return found


def test_every_module_and_every_entry(tmp_path):
    path = str(tmp_path / 'weights')
    torch.save({}, path)
    there = dict(type='Pretrained', checkpoint=path)
    check_starts(module(init=there, neck=module(init=dict(type='Kaiming'))))
    check_starts(module(init=dict(type='Pretrained', checkpoint='torchvision://resnet18')))
    for init in (MISSING, [dict(type='Xavier'), MISSING], dict(MISSING, type='PretrainedInit')):
        with pytest.raises(FileNotFoundError, match=r'^a\.b\.init_cfg: checkpoint nowhere.pth'):
            check_starts(module(a=module(b=module(init=init))))
    check_starts(module(a=module(init=MISSING)), later={'a'})
    with pytest.raises(CheckpointError, match='load_from: there is no complete checkpoint in'):
        check_start('load_from', str(tmp_path))


@pytest.fixture
def with_peer(images, tmp_path):
    """The path of a config whose peer starts from a file that is not there."""
    peer = dict(tiny_classifier(6), init_cfg=MISSING)
    config = recipe(images, objectives=dict(kd=dict(type='mmkd.KD', teacher_name='big')))
    config.model.update(teacher=None, peers=dict(big=peer))
    config.dump(tmp_path / 'peer.py')
    return str(tmp_path / 'peer.py')


def test_plan_chain_and_training_agree(with_peer, tmp_path, capsys):
    words = 'peers.big.init_cfg: checkpoint nowhere.pth does not exist'
    runner = build_runner(prepare(load_config(with_peer), work_dir=str(tmp_path / 'work')))
    runner.build_train_loop = None  # it says so before it reads data
    with pytest.raises(FileNotFoundError, match=words):
        runner.train()
    for options in ([], ['--step']):
        with pytest.raises(SystemExit) as end:
            plan.main([with_peer, *options])
        assert end.value.code == 1 and words in capsys.readouterr().err
    plan.main([with_peer, '--random-teacher'])
    with pytest.raises(SystemExit):
        plan.main([with_peer, '--cfg-options', 'load_from=gone.pth'])
    assert 'load_from: checkpoint gone.pth does not exist' in capsys.readouterr().err

    stages = dict(first=dict(config=with_peer))
    with pytest.raises(FileNotFoundError, match=rf"Stage 'first' .*{words}"):
        Chain(stages, str(tmp_path / 'chain'))
    Chain(stages, '', only_look=True)


def test_a_file_that_a_stage_before_writes(with_peer, paths, tmp_path):
    later = {'model.peers.big.init_cfg.checkpoint': 'first'}
    stages = dict(first=dict(config=paths['plain']), second=dict(config=with_peer, files=later))
    Chain(stages, str(tmp_path / 'chain'))
