"""Deepen: layers that are the identity, in both modes, and stages that do not allow them."""

import pytest
import torch
from torch import nn

from mmkd.edits import Deepen, apply_edits, made_in
from mmkd.edits.deepen import IdentityLayer
from mmkd.teacher import build_model
from mmkd.testing import tiny_classifier, tiny_faster_rcnn


def test_a_layer_is_the_identity_in_both_modes():
    torch.manual_seed(0)
    x = torch.randn(4, 3, 5, 5).double().relu() * 3
    layer = IdentityLayer(3).double().eval()
    layer.calibrate(layer.bn.running_mean, layer.bn.running_var)  # not rounded to float32
    assert (layer(x) - x).abs().max() < 1e-15
    # In training only with the statistics of what it gets.
    assert (layer.train()(x) - x).abs().max() > 0.1
    flat = x.transpose(0, 1).flatten(1)
    layer.calibrate(flat.mean(1), flat.var(1, correction=0))
    for mode in (False, True):
        with torch.no_grad():
            assert (layer.train(mode)(x) - x).abs().max() < 1e-14


def test_a_fresh_batch_norm_would_not_be_the_identity():
    x = torch.rand(1, 2, 3, 3) * 2
    layer = IdentityLayer(2).eval()
    nn.init.ones_(layer.bn.weight)
    assert (layer(x) - x).abs().max() > 1e-6


@pytest.mark.parametrize('entry', [tiny_classifier(4), tiny_faster_rcnn(4)], ids=['cls', 'frcnn'])
def test_outputs_stay(entry):
    model = build_model(entry)
    keys = set(model.state_dict())
    after = ['backbone.layer2', 'backbone.layer3', 'backbone.layer3']
    apply_edits(model, [dict(type='mmkd.Deepen', after=after)])
    (made,) = made_in(model)
    assert made.line.startswith('an identity layer behind backbone.layer2, ')
    assert float(made.line.rpartition(' ')[2]) < 1e-5
    assert keys < set(model.state_dict())
    added = [m for m in model.modules() if isinstance(m, IdentityLayer)]
    assert [m.conv.in_channels for m in added] == [8, 16, 16]


@pytest.mark.parametrize('activation', [nn.SiLU, nn.LeakyReLU, nn.Identity])
def test_other_activations_are_refused_with_the_difference(activation):
    model = build_model(tiny_classifier(4))
    model.backbone.layer2[-1].relu2 = activation()
    with pytest.raises(ValueError, match=r'Deepen claims to change no output, but .* up to \d\.\d'):
        apply_edits(model, [Deepen(['backbone.layer2'])])


@pytest.mark.parametrize('name', ['backbone', 'backbone.layer9', 'head'])
def test_no_such_stage(name):
    with pytest.raises(ValueError, match=f"Deepen: Classifier has no stage '{name}'"):
        apply_edits(build_model(tiny_classifier(4)), [Deepen([name])])
