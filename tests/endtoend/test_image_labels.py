"""The shipped configs of weakly supervised detectors, trained for two steps and scored."""

import os
from pathlib import Path

import pytest
import torch
from recipes import run

from mmkd.config import load_config
from mmkd.datasets.synthetic import write_coco
from mmkd.engine.launch import build_runner, prepare

CONFIGS = Path(__file__).parents[2] / 'configs' / 'small'


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('few')
    return write_coco(root / 'data', n_train=4, n_val=2, size=(96, 64), objects=(1, 2))


@pytest.mark.parametrize('name', ['oicr', 'casd', 'wsod2'])
def test_two_steps_and_corloc(name, data, tmp_path):
    config = load_config(str(CONFIGS / f'{name}_r18w16_scenes.py'))
    student = config.model.get('student', config.model)
    student.backbone.update(init_cfg=None, base_channels=4)
    student.roi_head.update(in_channels=16, width=16)
    for loader in (config.train_dataloader, config.val_dataloader):
        loader.update(batch_size=2)
        loader.dataset.data_root = str(data)
    config.update(work_dir=str(tmp_path), experiment_name=f'{name}_{os.getpid()}')
    config.log_level = 'WARNING'
    config.train_cfg = dict(by_epoch=False, max_iters=2, val_interval=2)
    config.param_scheduler = None
    config.default_hooks.checkpoint = dict(type='CheckpointHook', interval=2, by_epoch=False)
    for part in ('test_dataloader', 'test_evaluator', 'test_cfg'):
        config[part] = None
    if name == 'casd':
        config.model.objectives.casd.weight = 0.1  # from the first step
    runner = build_runner(prepare(config))
    losses, _ = run(runner)
    assert len(losses) == 2
    assert 0 <= runner.message_hub.get_scalar('val/corloc').current() <= 100
    saved = torch.load(tmp_path / 'iter_2.pth', weights_only=False)['state_dict']
    assert {key.split('.')[0] for key in saved} == {'backbone', 'roi_head'}
