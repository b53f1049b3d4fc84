"""Stand-ins become the real things: shared parts, cycles, nesting, and tensors without end."""

import numpy as np
import pytest
import torch
from hostile_files import contents

from mmkd.checkpoint import CheckpointError, read_checkpoint
from mmkd.checkpoint.scanning import MAX_DEPTH


def test_a_repeated_number_is_no_endless_tensor(path):
    torch.save(dict(a=torch.zeros(1).expand(1000, 1000)), path)
    assert read_checkpoint(path)['a'].shape == (1000, 1000)
    torch.save(dict(a=torch.zeros(1).expand(2**20, 2**20)), path)
    with pytest.raises(CheckpointError, match='a tensor of 4398046511104 bytes in a file of'):
        read_checkpoint(path)


def test_cycles_and_shared_parts_are_read(path):
    shared = (np.ones(2), [np.float32(3)])
    checkpoint = dict(contents(None), a=shared, b=[shared, shared])
    checkpoint['loop'] = [checkpoint['b']]
    checkpoint['loop'].append(checkpoint['loop'])
    torch.save(checkpoint, path)
    found = read_checkpoint(path)
    assert found['loop'][1] is found['loop'] and found['b'][0] is found['a']
    assert found['a'][0].tolist() == [1, 1] and found['a'][1] == [3]


def test_methods_of_a_mapping_cannot_be_replaced(path):
    checkpoint = contents(None)
    checkpoint['state_dict'].values = 'harmless text'
    torch.save(checkpoint, path)
    assert len(list(read_checkpoint(path)['state_dict'].values())) == 2


def test_nesting_up_to_the_limit(path):
    deep = 1
    for _ in range(MAX_DEPTH - 2):
        deep = [deep]
    torch.save(dict(a=deep), path)
    read_checkpoint(path)
    torch.save(dict(a=[[deep]]), path)
    with pytest.raises(CheckpointError, match='nested more than'):
        read_checkpoint(path)
