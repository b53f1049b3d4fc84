"""Files run code only if somebody said so."""

import pytest
import torch
from torch import nn

from mmkd.checkpoint import CheckpointError, read_checkpoint, trust_checkpoints, trusted


def test_trust(path):
    torch.save(dict(state_dict=nn.Linear(1, 1)), path)
    assert isinstance(read_checkpoint(path, trust=True)['state_dict'], nn.Linear)
    trust_checkpoints()
    try:
        assert isinstance(read_checkpoint(path)['state_dict'], nn.Linear)
    finally:
        trust_checkpoints(False)
    with pytest.raises(CheckpointError, match='refused'):
        read_checkpoint(path)


def test_nothing_is_trusted_unless_it_is_said():
    assert not trusted()
    trust_checkpoints()
    try:
        assert trusted()
    finally:
        trust_checkpoints(False)
    assert not trusted()
