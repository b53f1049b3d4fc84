"""The shipped configs of weakly supervised detectors: two steps, and colours that must be found."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from recipes import run

from mmkd.config import load_config
from mmkd.datasets import GridProposals
from mmkd.datasets.synthetic import write_coco
from mmkd.engine.launch import build_runner, prepare

CONFIGS = Path(__file__).parents[2] / 'configs' / 'small'

GRID = dict(scales=(0.5, 1.0), ratios=(1.0,), step=0.5)  # 17 boxes on 64 x 48 pixels
CORNERS = (0, 4, 10, 14)  # of them, disjoint
COLOURS = ((40, 40, 220), (40, 200, 40), (220, 60, 40))


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('few')
    return write_coco(root / 'data', n_train=4, n_val=2, size=(96, 64), objects=(1, 2))


@pytest.fixture(scope='module')
def coloured(tmp_path_factory):
    """40 images of one or two squares, each as large as a proposal; the colour is the class."""
    root, rng = tmp_path_factory.mktemp('coloured'), np.random.default_rng(0)
    (root / 'train').mkdir()
    (root / 'annotations').mkdir()
    boxes = GridProposals(**GRID).boxes(48, 64).round().astype(int)
    images, objects = [], []
    for i in range(40):
        image = rng.normal(128, 8, (48, 64, 3))
        labels = rng.permutation(3)[: 1 + i % 2]
        places = rng.permutation(CORNERS) if i % 2 else rng.permutation(15)
        for label, place in zip(labels.tolist(), places, strict=False):
            x1, y1, x2, y2 = boxes[place].tolist()
            image[y1:y2, x1:x2] = COLOURS[label]
            box = [x1, y1, x2 - x1, y2 - y1]
            one = dict(id=len(objects) + 1, image_id=i, category_id=label + 1, bbox=box)
            objects.append(dict(one, area=box[2] * box[3], iscrowd=0))
        cv2.imwrite(str(root / 'train' / f'{i}.png'), image.clip(0, 255).astype(np.uint8))
        images.append(dict(id=i, file_name=f'{i}.png', width=64, height=48))
    names = [dict(id=i + 1, name=name) for i, name in enumerate(('red', 'green', 'blue'))]
    content = dict(images=images, annotations=objects, categories=names)
    (root / 'annotations/train.json').write_text(json.dumps(content))
    return root


@pytest.mark.parametrize(('name', 'epochs'), [('wsddn', 8), ('oicr', 12)])
def test_colours_are_found_from_image_labels(name, epochs, coloured, tmp_path):
    """A box at random is right in 7 images of 100. A refinement starts late: its first seeds are
    chance."""
    config = load_config(str(CONFIGS / f'{name}_r18w16_scenes.py'))
    free = dict(frozen_stages=-1, norm_eval=False)  # as there are no weights to start from
    config.model.backbone.update(init_cfg=None, base_channels=8, **free)
    config.optim_wrapper.pop('paramwise_cfg')
    config.model.roi_head.update(num_classes=3, in_channels=32, width=64)
    for loader in (config.train_dataloader, config.val_dataloader):
        loader.update(batch_size=4)
        loader.dataset.data_root = str(coloured)
        loader.dataset.metainfo = dict(classes=('red', 'green', 'blue'))
        loader.dataset.pipeline[1].update(GRID)
    config.update(work_dir=str(tmp_path), experiment_name=f'{name}_{os.getpid()}')
    config.update(log_level='WARNING', randomness=dict(seed=0), param_scheduler=None)
    config.train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=epochs)
    config.optim_wrapper.optimizer.lr = 2e-3
    for part in ('test_dataloader', 'test_evaluator', 'test_cfg'):
        config[part] = None
    runner = build_runner(prepare(config))
    run(runner)
    assert runner.message_hub.get_scalar('val/corloc').current() >= 80


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
