"""Files of safetensors: weights wherever a checkpoint of torch is one."""

import sys

import pytest
import torch
from mmengine.runner import load_checkpoint
from safetensors.torch import save_file
from torch import nn

from mmkd.checkpoint import CheckpointError, read_checkpoint
from mmkd.teacher import load_strictly


@pytest.fixture
def path(tmp_path):
    path = tmp_path / 'model.safetensors'
    save_file(nn.Linear(2, 3).state_dict(), path, metadata=dict(format='pt'))
    return path


def test_weights(path):
    found = read_checkpoint(path, map_location='cpu')
    model, other = nn.Linear(2, 3), nn.Linear(2, 3)
    assert load_strictly(model, str(path), who='test') == 2
    load_checkpoint(other, str(path), strict=True)
    for one in (model, other):
        assert all(torch.equal(found[k], v) for k, v in one.state_dict().items())


def test_devices(path):
    assert read_checkpoint(path, map_location='meta')['weight'].is_meta


@pytest.mark.parametrize('part', [0.2, 0.9])
def test_truncated(path, part):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(CheckpointError, match='truncated or damaged'):
        read_checkpoint(path)


def test_without_the_package(path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'safetensors', None)
    with pytest.raises(CheckpointError, match='pip install safetensors'):
        read_checkpoint(path)
