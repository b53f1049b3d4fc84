"""No way into a run for weights that are no numbers."""

import pytest
import torch
from mmengine.model import BaseModule
from mmengine.runner.checkpoint import load_checkpoint
from torch import nn

from mmkd.checkpoint import CheckpointError, not_finite
from mmkd.teacher import Teacher, load_strictly


class Net(BaseModule):
    def __init__(self, init_cfg=None):
        super().__init__(init_cfg)
        self.conv = nn.Conv2d(3, 4, 1)


def file_of(folder, value):
    state = Net().state_dict()
    state['conv.bias'][1] = value
    torch.save(dict(state_dict=state, meta={}), folder / 'weights.pth')
    return str(folder / 'weights.pth')


@pytest.mark.parametrize('value', [float('nan'), float('-inf')])
@pytest.mark.parametrize(
    'load',
    [
        lambda path: Teacher(Net(), path),
        lambda path: load_strictly(Net(), path, who='test'),
        lambda path: load_checkpoint(Net(), path),
        lambda path: Net(dict(type='Pretrained', checkpoint=path)).init_weights(),
    ],
    ids=['teacher', 'test', 'stock', 'Pretrained'],
)
def test_every_loader_refuses(load, value, tmp_path):
    path = file_of(tmp_path, value)
    with pytest.raises(
        CheckpointError, match=r'weights\.pth holds NaN or infinity in conv\.bias: '
    ):
        load(path)


def test_who_has_them_is_said(tmp_path):
    path = file_of(tmp_path, float('nan'))
    with pytest.raises(CheckpointError, match=f'^teacher: {path} holds NaN'):
        Teacher(Net(), path)


def test_infinity_that_is_meant():
    inf, nan = float('inf'), float('nan')
    state = dict(
        mask=torch.tensor([[0, -inf], [0, 0]]),
        lowest=torch.tensor(inf),
        count=torch.tensor(3),
        diverged=torch.tensor([inf, inf]),
        mixed=torch.tensor([inf, 1.0]),
        spoilt=torch.tensor([nan, 0.0]),
        single=torch.tensor(nan),
    )
    assert not_finite(state) == ['diverged', 'mixed', 'spoilt', 'single']
    assert not_finite(state, strict=True) == ['mask', 'lowest', *not_finite(state)]


@pytest.mark.parametrize(
    'load',
    [
        lambda path: load_strictly(Net(), path, who='test'),
        lambda path: Net(dict(type='Pretrained', checkpoint=path)).init_weights(),
    ],
    ids=['test', 'Pretrained'],
)
def test_a_parameter_is_never_meant_to_be_infinite(load, tmp_path):
    """A bias of zeros with one infinity looks like a mask, which only a buffer can be."""
    state = Net().state_dict()
    state['conv.bias'].zero_()[1] = float('inf')
    torch.save(dict(state_dict=state), tmp_path / 'weights.pth')
    with pytest.raises(CheckpointError, match=r'holds NaN or infinity in conv\.bias'):
        load(str(tmp_path / 'weights.pth'))
