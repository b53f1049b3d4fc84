"""Exits: their parameters and their sizes."""

import pytest
import torch

from mmkd.adapters.exits import Exit, SeparableBlock, build_exits
from mmkd.levels import Level


def stages(width=64, size=56, count=4):
    """Four stages of a ResNet, of which each is half as large and twice as wide."""
    shapes = [(width << i, size >> i, size >> i) for i in range(count)]
    return [Level(shape, 4 << i, f'backbone.layer{i + 1}') for i, shape in enumerate(shapes)]


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize('c', [8, 64, 256])
def test_parameters_of_a_block(c):
    assert count(SeparableBlock(c, 2 * c)) == 18 * c + 3 * c**2 + 6 * c
    assert c != 64 or count(SeparableBlock(c, 2 * c)) == 13_824


@pytest.mark.parametrize(
    ('width', 'classes', 'wanted'),
    [(64, 100, [320_100, 306_276, 254_052]), (8, 10, [6_026, 5_642, 4_490])],
)
def test_parameters_of_the_exits_of_a_resnet(width, classes, wanted):
    assert [count(e) for e in build_exits([0, 1, 2], stages(width), classes)] == wanted


def test_bottlenecks_are_four_times_as_wide():
    (branch,) = build_exits([2], stages(256), 10)
    assert count(branch) == count(SeparableBlock(1024, 2048)) + 2048 * 10 + 10


def test_an_exit_ends_at_size_and_width_of_the_last_stage():
    exits = build_exits([0, 2], stages(4, 16, 4), 3)
    for branch, level in zip(exits, [stages(4, 16)[0], stages(4, 16)[2]], strict=True):
        x = torch.rand(2, *level.shape)
        assert branch.blocks(x).shape == (2, 32, 2, 2)
        logits, features = branch(x)
        assert logits.shape == (2, 3) and features.shape == (2, 32)
        assert torch.equal(features, branch.blocks(x).mean((2, 3)))
    odd = Exit([4, 6], [2], 3)
    assert odd.blocks(torch.rand(2, 4, 5, 7)).shape == (2, 6, 3, 4), 'as a stage of stride 2'


def test_a_stage_without_a_stride_keeps_its_size():
    dilated = [*stages(4, 16, 2), Level((16, 8, 8), 8, 'backbone.layer3')]
    (branch,) = build_exits([0], dilated, 3)
    assert branch.blocks(torch.rand(2, 4, 16, 16)).shape == (2, 16, 8, 8)
