"""mmengine's table of loaders reads as mmkd does, and gives what it gave."""

import pytest
import torch
from mmengine.runner import CheckpointLoader, load_checkpoint
from mmengine.runner import checkpoint as mm
from torch import nn

from mmkd.checkpoint import CheckpointError, guard_stock_loaders, trust_checkpoints
from mmkd.checkpoint.stock import load_from_mmkd


def test_no_loader_of_mmengine_is_left():
    assert {'', 'http://', 'open-mmlab://', 'pavi://'} <= set(CheckpointLoader._schemes)
    assert all(loader is load_from_mmkd for loader in CheckpointLoader._schemes.values())


def test_loaders_of_other_packages_stay(monkeypatch):
    monkeypatch.setattr(CheckpointLoader, '_schemes', dict(CheckpointLoader._schemes))
    own = CheckpointLoader.register_scheme('own://')(lambda name, map_location: dict(name=name))
    guard_stock_loaders()
    assert CheckpointLoader._schemes['own://'] is own
    assert CheckpointLoader.load_checkpoint('own://a') == dict(name='own://a')


def test_a_file_may_hold_one_tensor(path):
    torch.save(torch.ones(2), path)
    assert torch.equal(CheckpointLoader.load_checkpoint(str(path)), torch.ones(2))


def test_what_it_gives_is_what_is_in_the_file(path):
    state = nn.BatchNorm1d(2).state_dict()
    torch.save(dict(state_dict=state, meta=dict(epoch=3, cfg='x = 1')), path)
    found = load_checkpoint(nn.BatchNorm1d(2), str(path))
    assert found['meta'] == dict(epoch=3, cfg='x = 1')
    assert found['state_dict']._metadata == state._metadata


def test_trust(path):
    torch.save(dict(state_dict=nn.Linear(1, 1)), path)
    with pytest.raises(CheckpointError, match='--trust-checkpoint'):
        mm._load_checkpoint(str(path))
    trust_checkpoints()
    try:
        assert isinstance(mm._load_checkpoint(str(path))['state_dict'], nn.Linear)
    finally:
        trust_checkpoints(False)
