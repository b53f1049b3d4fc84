"""Shipped configs with mosaic, which their last epochs switch off, small, in a real Runner."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from recipes import detection_data

from mmkd.config import load_config
from mmkd.engine.launch import train
from mmkd.teacher import build_model
from mmkd.testing import shrink

FOLDER = Path(__file__).parents[2] / 'configs'
#: sides in the configs' pipelines, and here
SMALL = {640: 64, 1280: 128, 416: 64, 480: 64, 800: 64, -320: -32, -208: -32}


def smaller(value):
    """The same pipeline for small images."""
    if isinstance(value, dict):
        return {k: v if k == 'pad_val' else smaller(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(smaller(v) for v in value)
    return SMALL.get(value, value) if isinstance(value, int) else value


def narrow(student):
    """A stock model of a quarter of the width, for five classes."""
    student = smaller(shrink(student, 4))
    student['bbox_head']['num_classes'] = 5
    for part in ('backbone', 'neck', 'bbox_head'):  # SyncBN needs a GPU
        student[part]['norm_cfg'] = dict(type='BN')
    return student


def small(name, folder):
    """A shipped config with narrow networks, on eight images, for two epochs."""
    config = load_config(str(FOLDER / f'{name}.py')).to_dict()
    own, val, metric = detection_data(folder / 'data')
    model = config['model']
    model['student'] = narrow(model['student'])
    teacher = load_config(model['teacher']['config']).model.to_dict()
    model['teacher'] = dict(config=narrow(teacher), checkpoint='random')
    loader = smaller(config['train_dataloader'])
    inner = loader['dataset'].get('dataset', loader['dataset'])  # of MultiImageMixDataset
    inner |= {k: v for k, v in own.items() if k != 'pipeline'}
    loader |= dict(batch_size=2, num_workers=0, persistent_workers=False)
    sampler = dict(type='DefaultSampler', shuffle=False)
    score = dict(batch_size=2, num_workers=0, dataset=val, sampler=sampler)
    hooks = smaller(config['custom_hooks'])
    for hook in hooks:
        last = {'YOLOXModeSwitchHook': 'num_last_epochs', 'PipelineSwitchHook': 'switch_epoch'}
        now = int(hook['type'] == 'PipelineSwitchHook')  # both switch before the second epoch
        hook |= {last[hook['type']]: now} if hook['type'] in last else {}
    config |= dict(train_dataloader=loader, val_dataloader=score, test_dataloader=score)
    config |= dict(val_evaluator=metric, test_evaluator=metric, custom_hooks=hooks)
    config |= dict(train_cfg=dict(by_epoch=True, max_epochs=2, val_interval=2))
    config |= dict(param_scheduler=[], work_dir=str(folder / 'out'), log_level='WARNING')
    config['default_hooks'] |= dict(checkpoint=dict(type='CheckpointHook', interval=2))
    config['default_hooks'] |= dict(logger=dict(type='LoggerHook', interval=1))
    for entry in ('auto_scale_lr', 'tta_model', 'tta_pipeline'):
        config.pop(entry, None)
    return Config(config)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """By name, the runner of a finished run and its folder."""
    runs = {}
    for name in ('dense_kd_yolox_m_tiny', 'cwd_rtmdet_m_tiny', 'dense_kd_rtmdet_m_s'):
        folder = tmp_path_factory.mktemp(name)
        runs[name] = train(small(name, folder)), folder
    return runs


def logged(runner, key):
    return [float(v) for v in runner.message_hub.get_scalar(f'train/{key}').data[0]]


def test_yolox_switches_mosaic_off_and_l1_on(trained):
    """YOLOXModeSwitchHook finds the student's head and data in the Distiller's run."""
    runner, _ = trained['dense_kd_yolox_m_tiny']
    dataset = runner.train_dataloader.dataset
    assert 'Mosaic' in dataset._skip_type_keys
    assert runner.model.bbox_head.use_l1 and runner.model.student.bbox_head.use_l1
    assert not runner.model.teachers['teacher'].model.bbox_head.use_l1
    losses = logged(runner, 'kd.dense_kd.loss_classes')
    assert len(losses) == 8 and all(loss > 0 for loss in losses)
    assert len(logged(runner, 'loss_l1')) == 4, 'L1 is a loss of the last epoch'
    assert {'SyncNormHook', 'EMAHook'} <= {type(hook).__name__ for hook in runner.hooks}


def test_rtmdet_switches_its_pipeline(trained):
    """PipelineSwitchHook exchanges the pipeline of the Distiller's run."""
    runner, _ = trained['cwd_rtmdet_m_tiny']
    kinds = [type(step).__name__ for step in runner.train_dataloader.dataset.pipeline.transforms]
    assert 'CachedMosaic' not in kinds and 'RandomCrop' in kinds
    losses = logged(runner, 'kd.cwd.loss')
    assert len(losses) == 8 and all(loss > 0 for loss in losses)
    adapters = runner.model.objectives['cwd'].adapters
    assert len(adapters) == 3 and all(a.conv.bias is None for a in adapters.values())


def test_rtmdet_predictions(trained):
    runner, _ = trained['dense_kd_rtmdet_m_s']
    for term in ('classes', 'boxes'):
        assert all(loss > 0 for loss in logged(runner, f'kd.dense_kd.loss_{term}'))


@pytest.mark.parametrize('name', ['dense_kd_yolox_m_tiny', 'cwd_rtmdet_m_tiny'])
def test_the_file_is_an_averaged_plain_student(name, trained):
    runner, folder = trained[name]
    saved = torch.load(folder / 'out' / 'epoch_2.pth', weights_only=False)
    plain = {k: v for k, v in saved['state_dict'].items() if not k.startswith('objectives.')}
    build_model(runner.cfg.model.student).load_state_dict(plain, strict=True)
    average = {k.removeprefix('module.') for k in saved['ema_state_dict']} - {'steps'}
    assert average == set(saved['state_dict'])
