"""init_cfg=dict(type='Pretrained') loads what fits, says what not, and not nothing."""

import pytest
import torch
from mmengine.model import BaseModule
from torch import nn

from mmkd.checkpoint import CheckpointError


class Backbone(BaseModule):
    def __init__(self, checkpoint, **options):
        super().__init__(dict(type='Pretrained', checkpoint=str(checkpoint), **options))
        self.conv = nn.Conv2d(3, 4, 1)


@pytest.fixture
def file(tmp_path):
    state = nn.Conv2d(3, 4, 1).state_dict()
    state = {f'backbone.conv.{key}': torch.full_like(value, 2) for key, value in state.items()}
    torch.save(dict(state_dict=state | {'head.fc.weight': torch.ones(1)}), tmp_path / 'a.pth')
    return tmp_path / 'a.pth'


@pytest.mark.parametrize('options', [dict(), dict(prefix='backbone'), dict(prefix='backbone.')])
def test_a_backbone_is_found_in_a_classifier(file, options, log):
    backbone = Backbone(file, **options)
    backbone.init_weights()
    assert all(bool((p == 2).all()) for p in backbone.parameters())
    assert f'init_cfg {file}: all 2 weights of Backbone were loaded' in log.text


def test_nothing_is_refused(file):
    with pytest.raises(CheckpointError, match="no weights under 'neck.'; it has backbone., head."):
        Backbone(file, prefix='neck').init_weights()
    with pytest.raises(ValueError, match='init_cfg .*none of its 1 weights .*fits Backbone'):
        Backbone(file, prefix='head').init_weights()


def test_stock_initialisers_are_left_alone(file):
    layer = BaseModule(dict(type='Constant', layer='Linear', val=3))
    layer.fc = nn.Linear(2, 2)
    layer.init_weights()
    assert bool((layer.fc.weight == 3).all())
