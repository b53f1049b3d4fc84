"""Histories of scalars, and names that could be imported here."""

import sys

import pytest
import torch
from mmengine.logging import HistoryBuffer

from mmkd.checkpoint import read_checkpoint
from mmkd.checkpoint.scanning import Contents
from mmkd.checkpoint.unpickling import exists_here, misused_names, unsafe_names


def test_statistics_of_a_file_do_not_replace_ours(path):
    methods = dict(HistoryBuffer._statistics_methods)
    real = HistoryBuffer([1.0], [1])
    real._statistics_methods = dict(methods, mean='harmless text')
    torch.save(dict(a=real), path)
    read_checkpoint(path)
    assert HistoryBuffer._statistics_methods == methods


def test_history_of_a_fresh_process_can_be_averaged(tmp_path):
    path = tmp_path / 'hub.pth'
    buffer = HistoryBuffer([1.0, 3.0], [1, 1])
    torch.save(dict(state_dict={'w': torch.zeros(1)}, message_hub={'loss': buffer}), path)
    HistoryBuffer._statistics_methods.clear()  # as before the first buffer of a process
    loaded = read_checkpoint(path)['message_hub']['loss']
    assert loaded.statistics('mean') == 2.0


@pytest.mark.parametrize(
    ('name', 'here'),
    [
        ('builtins.eval', True),
        ('torch.nn.modules.linear.Linear', True),
        ('torch.nn.modules.linear.Lineal', False),
        ('mmkd.checkpoint.extract', True),
        ('some_package_of_others.Thing', False),
        ('not a name', False),
        ('eval', False),
    ],
)
def test_names_are_looked_up_without_importing_them(name, here):
    before = set(sys.modules)
    assert exists_here(name) == here and exists_here(f'{name}()') == here
    assert set(sys.modules) == before


def test_names_beyond_plain_values():
    names = {
        'torch.FloatStorage',
        'torch._utils._rebuild_tensor_v2',
        'numpy.dtype',
        'torch.hub.load',
    }
    contents = Contents(names=names, calls={'builtins.eval', 'torch.float32'})
    assert unsafe_names(contents) == ['builtins.eval', 'torch.hub.load']
    assert misused_names(contents) == ['torch.float32'], 'a type of numbers is no function'
