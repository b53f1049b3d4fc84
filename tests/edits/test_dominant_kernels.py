"""DominantKernels: the decomposition, its cost, and layers that it is not for."""

import pytest
import torch
from torch import nn

from mmkd.edits import DominantKernels, apply_edits, made_in
from mmkd.edits.dominant_kernels import DominantConv, cost_ratio, decompose
from mmkd.teacher import build_model
from mmkd.testing import tiny_classifier, tiny_faster_rcnn


@pytest.mark.parametrize(
    'rank, ratio', [(1, 0.126736), (2, 0.253472), (3, 0.380208), (9, 1.140625)]
)
def test_cost_of_the_sheet(rank, ratio):
    assert cost_ratio(nn.Conv2d(64, 64, 3), rank) == pytest.approx(ratio, abs=5e-7)


def test_the_decomposition_is_the_nearest_and_complete_at_full_rank():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 8, 3, stride=2, padding=1).double()
    x, losses = torch.randn(2, 3, 9, 9).double(), []
    for rank in (1, 2, 4, 8):
        spatial, mix, lost = decompose(conv.weight.detach(), rank)
        low = torch.einsum('irkl,oir->oikl', spatial.view(3, rank, 3, 3), mix.view(8, 3, rank))
        gap = (low - conv.weight.detach()).norm() / conv.weight.detach().norm()
        assert float(gap) == pytest.approx(lost, abs=1e-7)
        block = DominantConv(conv, rank).double()
        block.load_state_dict(
            {'spatial.weight': spatial, 'mix.weight': mix, 'mix.bias': conv.bias.detach()}
        )
        conv_low = nn.functional.conv2d(x, low, conv.bias, 2, 1)
        assert (block(x) - conv_low).abs().max() < 1e-14
        losses.append(lost)
    assert losses == sorted(losses, reverse=True) and losses[-1] < 1e-14 < losses[-2]
    assert (block(x) - conv(x)).abs().max() < 1e-14


@pytest.mark.parametrize('entry', [tiny_classifier(8), tiny_faster_rcnn(8)], ids=['cls', 'frcnn'])
def test_outputs_keep_their_shapes(entry):
    model = build_model(entry)
    edit = dict(type='mmkd.DominantKernels', rank=2, skip=['backbone.layer1'])
    apply_edits(model, [edit])
    assert 'convolutions of 2 kernels for each channel' in made_in(model)[0].line
    assert isinstance(model.backbone.layer2[0].conv1, DominantConv)
    assert isinstance(model.backbone.layer1[0].conv1, nn.Conv2d)
    assert model.backbone.layer2[0].conv1.spatial.stride == (2, 2)


@pytest.mark.parametrize(
    'options, words',
    [
        (dict(rank=0), 'rank must be'),
        (dict(rank=9), 'would cost 1.89 times what it does'),
        (dict(rank=1, only=['head']), 'no convolution of 3 x 3'),
        (dict(rank=1, skip=['nek']), "skip names 'nek'"),
    ],
)
def test_bad_input(options, words):
    with pytest.raises(ValueError, match=words):
        apply_edits(build_model(tiny_classifier(8)), [DominantKernels(**options)])


def test_a_layer_that_is_asked_twice():
    model = apply_edits(build_model(tiny_classifier(8)), [DominantKernels(1)])
    with pytest.raises(ValueError, match='no convolution of 3 x 3'):
        DominantKernels(1)(model)
