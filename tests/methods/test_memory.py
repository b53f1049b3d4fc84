"""200 boxes on an image of 800 x 1333 pixels must not need a matrix of all boxes and anchors."""

import pytest
import torch
from mmdet.models.task_modules.prior_generators import AnchorGenerator

from mmkd.engine.benchmark import peak_bytes
from mmkd.methods.fgfi import imitation_masks
from mmkd.methods.ld import valuable_region

LIMIT = 200e6


def anchors(strides, ratios, **sizes):
    generator = AnchorGenerator(strides=strides, ratios=ratios, **sizes)
    maps = [(-(-800 // stride), -(-1344 // stride)) for stride in strides]
    return generator.grid_priors(maps, device='cpu')


def boxes(count):
    found = torch.rand(count, 4, generator=torch.Generator().manual_seed(0)) * 400
    found[:, 2:] += found[:, :2]
    return found, torch.arange(count) % 2


@pytest.mark.parametrize('level_rule', ['global', 'per_level'])
def test_fgfi(level_rule):
    levels = [a.view(-1, 3, 4) for a in anchors([4, 8, 16, 32, 64], [0.5, 1, 2], scales=[8])]
    found, images = boxes(200)
    assert peak_bytes(lambda: imitation_masks(levels, found, images, 2, 0.5, level_rule)) < LIMIT


def test_ld():
    levels = anchors([8, 16, 32, 64, 128], [1.0], octave_base_scale=8, scales_per_octave=1)
    found, images = boxes(200)
    used = torch.ones(2, sum(map(len, levels)), dtype=torch.bool)
    assert peak_bytes(lambda: valuable_region(levels, found, images, used)) < LIMIT
