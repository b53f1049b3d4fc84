"""Data that cannot work stop a run before its first step, and a test before its first image."""

import json

import pytest
import torch
from recipes import recipe

from mmkd.datasets.protection import DataError
from mmkd.engine import launch


def remove_image(root):
    (root / 'val/000002.jpg').unlink()


def remove_objects(root):
    path = root / 'annotations/val.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), 'annotations': []}))


@pytest.mark.parametrize(
    ('spoil', 'words'),
    [(remove_image, r'evaluation needs all: .*000002\.jpg'), (remove_objects, 'no object in the')],
)
def test_training_stops_before_its_first_step(tmp_path, monkeypatch, spoil, words):
    config = recipe('retinanet', tmp_path / 'data', tmp_path / 'run')
    spoil(tmp_path / 'data')
    runner = launch.build_runner(launch.prepare(config, str(tmp_path / 'run')))
    monkeypatch.setattr(type(runner.model), 'train_step', lambda *args: pytest.fail('a step'))
    with pytest.raises(DataError, match=words):
        runner.train()


def test_a_test_stops_before_its_first_image(tmp_path, monkeypatch):
    config = recipe('retinanet', tmp_path / 'data', tmp_path / 'run')
    remove_image(tmp_path / 'data')
    weights = launch.build_runner(config).model.state_dict()
    torch.save(dict(state_dict=weights), tmp_path / 'a.pth')
    runner = launch.tester(config, str(tmp_path / 'a.pth'), str(tmp_path / 'run'))
    monkeypatch.setattr(type(runner.model), 'test_step', lambda *args: pytest.fail('a step'))
    with pytest.raises(DataError, match=r'evaluation needs all: .*000002\.jpg'):
        runner.test()
