"""Dirac: what layers compute with, what is saved, and what is refused."""

import copy

import pytest
import torch
from torch import nn

from mmkd.adapters.fake_quant import bake
from mmkd.edits import Dirac, FakeQuant, apply_edits, made_in
from mmkd.edits.dirac import DiracConv, folded
from mmkd.teacher import build_model
from mmkd.testing import tiny_classifier


def classifier(*edits):
    torch.manual_seed(0)
    return apply_edits(build_model(tiny_classifier(4)).eval(), list(edits))


def test_a_layer_is_a_share_of_the_identity_and_its_weight():
    torch.manual_seed(0)
    conv, x = nn.Conv2d(3, 3, 3, padding=1, bias=False).double(), torch.randn(2, 3, 5, 5).double()
    weight = folded(conv.weight, torch.tensor(0.7), torch.tensor(0.2))
    found = nn.functional.conv2d(x, weight, padding=1)
    assert (found - (0.7 * x + 0.2 * conv(x))).abs().max() < 5e-8  # 0.7 in float32
    for shape in ((4, 6, 3, 3), (6, 4, 5, 3)):
        weight = torch.randn(shape)
        identity = nn.init.dirac_(torch.empty(shape))
        assert torch.equal(folded(weight, torch.tensor(1.0), torch.tensor(0.0)), identity)


def test_saved_weights_are_folded_and_do_the_same_in_the_plain_network():
    model = classifier(dict(type='mmkd.Dirac', alpha=0.9))
    with torch.no_grad():
        for index, numbers in enumerate(model.edits.values()):
            numbers.alpha.add_(0.01 * index)
    (made,) = made_in(model)
    assert made.in_weights and made.line.startswith('6 convolutions as 0.9 I + 0.1 W')
    state = model.state_dict()
    saved = {k: v for k, v in {**state, **bake(model, state)}.items() if not k.startswith('edits.')}
    plain = build_model(tiny_classifier(4)).eval()
    plain.load_state_dict(saved)
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(plain(x, mode='tensor'), model(x, mode='tensor'))
        assert torch.equal(copy.deepcopy(model)(x, mode='tensor'), model(x, mode='tensor'))


def test_alpha_beta_and_weights_learn():
    model = classifier(Dirac())
    model(torch.randn(2, 3, 16, 16), mode='tensor').square().sum().backward()
    for name, parameter in model.edits.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs() > 0, name
    layers = [m for m in model.modules() if isinstance(m, DiracConv)]
    assert len(layers) == 6 and all(m.weight.grad.any() for m in layers)


def test_plain_at_alpha_0_and_beta_1():
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        pair = [classifier(*edits)(x, mode='tensor') for edits in ([], [Dirac(0, 1)])]
    assert torch.equal(*pair)


def test_bad_input():
    with pytest.raises(ValueError, match='no convolution of 3 x 3'):
        classifier(Dirac(only=['head']))
    for before, behind in (
        (Dirac(), Dirac()),
        (FakeQuant(bits=4), Dirac()),
        (Dirac(), FakeQuant(bits=4)),
    ):
        with pytest.raises(ValueError, match='computes with another weight already'):
            classifier(before, behind)
    with pytest.raises(ValueError, match='alpha must be'):
        Dirac(alpha=float('nan'))
