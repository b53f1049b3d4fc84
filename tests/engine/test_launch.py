"""From a config to a Runner: what the tools share."""

import argparse

import pytest
import torch
from mmengine.config import Config

from mmkd.commands.arguments import add_common, add_teacher
from mmkd.config import default_work_dir
from mmkd.engine import launch
from mmkd.engine.launch import (
    apply_common,
    enable_amp,
    move_data,
    prepare,
    read_config,
)
from mmkd.engine.overhead import OverheadHook


def config(**entries):
    return Config(
        dict(
            model=dict(type='mmkd.ToyNet'),
            optim_wrapper=dict(optimizer=dict(type='SGD')),
            **entries,
        )
    )


def parse(*arguments):
    parser = argparse.ArgumentParser()
    add_common(parser)
    return parser.parse_args(arguments)


def test_prepare_adds_our_hooks_once():
    names = ['mmkd.PreflightHook', 'mmkd.DataGuardHook', 'mmkd.OverheadHook']
    prepared = prepare(config(), work_dir='out')
    assert [h['type'] for h in prepared.custom_hooks] == names
    assert [h['type'] for h in prepare(prepared).custom_hooks] == names
    mine = [dict(type='EMAHook'), dict(type='mmkd.OverheadHook', warmup=3)]
    prepared = prepare(config(custom_hooks=mine), work_dir='out')
    assert [h['type'] for h in prepared.custom_hooks] == ['EMAHook', names[2], *names[:2]]
    assert prepared.custom_hooks[1]['warmup'] == 3


def test_hooks_may_be_objects():
    hook = OverheadHook()
    prepared = prepare(config(custom_hooks=[hook]), work_dir='out')
    assert prepared.custom_hooks[0] is hook and len(prepared.custom_hooks) == 3


def test_a_checkpoint_without_a_name_does_not_start_from_the_beginning():
    with pytest.raises(ValueError, match='has an empty name'):
        prepare(config(load_from='', resume=True), work_dir='out')


def test_work_dirs():
    assert default_work_dir('a/b/fgfi_x.py') == 'work_dirs/fgfi_x'
    assert prepare(config(work_dir='mine')).work_dir == 'mine'
    assert prepare(config(work_dir='mine'), work_dir='other').work_dir == 'other'


def test_mixed_precision_without_a_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(ValueError, match='--amp needs a GPU'):
        prepare(config(), work_dir='out', amp=True)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    it = config()
    enable_amp(it)
    assert it.optim_wrapper.type == 'AmpOptimWrapper' and it.optim_wrapper.loss_scale == 'dynamic'
    other = config()
    other.optim_wrapper.type = 'DeepSpeedOptimWrapper'
    with pytest.raises(ValueError, match='the config has DeepSpeedOptimWrapper'):
        enable_amp(other)


def test_a_dataset_that_is_not_there_stops_before_training(tmp_path):
    dataset = dict(
        type='mmdet.CocoDataset',
        data_root=str(tmp_path / 'gone'),
        ann_file='a.json',
        data_prefix=dict(img=''),
    )
    with pytest.raises(FileNotFoundError, match='gone'):
        prepare(config(train_dataloader=dict(dataset=dataset)), work_dir='out')


def test_options_and_data_root_reach_every_place():
    it = config(
        data_root='data/coco/',
        train_dataloader=dict(dataset=dict(data_root='data/coco/', other=['data/coco/x.json'])),
        val_evaluator=dict(ann_file='data/coco/annotations/val.json'),
    )
    move_data(it, '/mnt/coco')
    assert it.train_dataloader.dataset.data_root.rstrip('/') == '/mnt/coco'
    assert it.train_dataloader.dataset.other == ['/mnt/coco/x.json']
    assert it.val_evaluator.ann_file == '/mnt/coco/annotations/val.json'
    args = parse('--cfg-options', 'optim_wrapper.optimizer.lr=0.5', '--launcher', 'pytorch')
    it = apply_common(args, config())
    assert it.optim_wrapper.optimizer.lr == 0.5 and it.launcher == 'pytorch'


def test_every_tool_reads_a_stock_config_with_a_teacher():
    parser = argparse.ArgumentParser()
    parser.add_argument('config')
    add_teacher(parser)
    add_common(parser)
    path = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
    plain = read_config(parser.parse_args([path]))
    assert plain.model.type == 'RetinaNet'
    options = ['--teacher', path, 'random', '--method', 'CWD']
    taught = read_config(parser.parse_args([path, *options]))
    assert taught.model.type == 'mmkd.Distiller'
    assert taught.model.objectives == dict(cwd=dict(type='mmkd.CWD'))


@pytest.mark.parametrize(
    ('model', 'complaint'),
    [
        (None, 'has no model, found None'),
        ('x', "has no model, found 'x'"),
        (dict(type='mmkd.Distiller', student=None), 'has no student, found None'),
    ],
)
def test_a_config_without_a_model(tmp_path, model, complaint):
    config = Config(dict(model=model))
    with pytest.raises(ValueError, match=complaint):
        prepare(config, str(tmp_path))
    with pytest.raises(ValueError, match=complaint):
        launch.tester(config, 'x.pth', str(tmp_path))


def test_half_a_validation_is_refused():
    with pytest.raises(ValueError, match='has val_evaluator and val_cfg, but no val_dataloader'):
        prepare(config(val_evaluator=dict(type='A'), val_cfg=dict()), work_dir='out')
