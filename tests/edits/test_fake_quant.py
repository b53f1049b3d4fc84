"""FakeQuant: which layers it takes, how many bits, and what is refused."""

import pytest
import torch
from torch import nn

from mmkd.adapters.fake_quant import bake, latent_modules
from mmkd.edits import FakeQuant, apply_edits, made_in
from mmkd.teacher import build_model
from mmkd.testing import (
    detection_batch,
    tiny_classifier,
    tiny_detr,
    tiny_faster_rcnn,
    tiny_pspnet,
    tiny_retinanet,
)


def bits_of(model):
    return {name: module.rounding.bits for name, module in latent_modules(model)}


def quantised(config, **options):
    torch.manual_seed(0)
    return FakeQuant(**options)(build_model(config))


@pytest.mark.parametrize(
    ('config', 'ends'),
    [
        (tiny_classifier(4), {'backbone.conv1', 'head.fc'}),
        (tiny_pspnet(4), {'backbone.stem.0', 'decode_head.conv_seg'}),
        (
            tiny_faster_rcnn(4),
            {
                *('backbone.conv1', 'rpn_head.rpn_cls', 'rpn_head.rpn_reg'),
                *('roi_head.bbox_head.fc_cls', 'roi_head.bbox_head.fc_reg'),
            },
        ),
        (
            tiny_retinanet(4),
            {'backbone.conv1', 'bbox_head.retina_cls', 'bbox_head.retina_reg'},
        ),
    ],
)
def test_first_and_last_layers_have_bits_of_their_own(config, ends):
    model = quantised(config, bits=4)
    found = bits_of(model)
    assert {name for name, bits in found.items() if bits == 8} == ends
    assert set(found.values()) == {4, 8}
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len({id(m) for _, m in latent_modules(model)}) == len(layers)
    assert not ends & set(bits_of(quantised(config, bits=4, ends=None)))


def test_a_detr_has_what_attention_hides_in_float():
    model = quantised(tiny_detr(8), bits=4)
    found = bits_of(model)
    assert not any('attn' in name for name in found)
    assert found['bbox_head.fc_cls'] == 8 and found['bbox_head.fc_reg'] == 8


def test_without_a_prediction_layer_the_last_one_is_an_end():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
    FakeQuant(bits=3)(net)
    assert bits_of(net) == {'0': 8, '1': 3, '2': 8}


def test_only_and_skip():
    config = tiny_faster_rcnn(4)
    found = bits_of(quantised(config, bits=4, only=['backbone.layer1', 'neck']))
    assert found and all(name.startswith(('backbone.layer1.', 'neck.')) for name in found)
    found = bits_of(quantised(config, bits=4, skip=('bbox_head', 'rpn_head')))
    assert found and not any('head' in name for name in found)
    assert found['backbone.conv1'] == 8


def test_several_edits_share_the_layers_out():
    edits = [
        dict(type='mmkd.FakeQuant', bits=2, only=['backbone']),
        dict(type='mmkd.FakeQuant', bits=6, skip=['backbone']),
    ]
    model = apply_edits(build_model(tiny_retinanet(4)), edits)
    assert set(bits_of(model).values()) == {2, 6, 8}


def test_the_plain_model_computes_the_same_with_baked_weights():
    config = tiny_faster_rcnn(4)
    model, plain = quantised(config, bits=3, form='asymmetric'), build_model(config)
    state = model.state_dict()
    plain.load_state_dict({**state, **bake(model, state)})
    inputs, samples = detection_batch(1)
    model.eval(), plain.eval()
    with torch.no_grad():
        results = [x.predict(inputs, samples)[0].pred_instances for x in (model, plain)]
        maps = [x.extract_feat(inputs) for x in (model, plain)]
    assert all(torch.equal(a, b) for a, b in zip(*maps, strict=True))
    assert torch.equal(results[0].scores, results[1].scores)


@pytest.mark.parametrize('bits', [None, 32])
def test_float_changes_nothing(bits):
    edit = FakeQuant(bits=bits)
    model = edit(build_model(tiny_classifier(4)))
    assert edit.claims == 'same' and not [*latent_modules(model)]


def test_the_plan_says_bits():
    model = apply_edits(build_model(tiny_classifier(4)), [dict(type='mmkd.FakeQuant', bits=4)])
    line = made_in(model)[0].line
    assert line.startswith('8 layers to 4 bits and 2 layers to 8 bits (symmetric by channel), 1')
    assert '% of the bits of float32; outputs differ by at most 0.' in line


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(bits=1), 'bits must be a whole number from 2 to 16, or None, found 1'),
        (dict(bits=17), 'bits must be a whole number from 2 to 16'),
        (dict(bits=2.5), 'bits must be a whole number'),
        (dict(bits=4, ends=0), 'ends must be a whole number from 2 to 16'),
        (dict(bits=4, axis='flat:0'), "axis must be one of .*'flat:N'.* found 'flat:0'"),
        (dict(bits=4, form='log'), "form must be one of .* found 'log'"),
        (dict(bits=4, rounding='up'), "rounding must be one of .* found 'up'"),
        (dict(bits=4, form='lsq', rounding='stochastic'), "rounding='stochastic' is for fixed"),
        (dict(bits=4, acts=1), 'acts must be a whole number from 2 to 16'),
        (dict(bits=4, acts=dict(bits=8, clip=0)), 'clip of acts must be a finite number above 0'),
        (dict(bits=4, acts=dict(bit=8)), "acts takes bits and clip, found 'bit' too"),
        (dict(bits=4, only=['head'], acts=8), 'acts= rounds what ReLUs give, but Classifier has'),
        (dict(bits=4, skip='neck'), 'skip must be a list'),
        (dict(bits=4, skip=['nek']), "skip names 'nek', but Classifier has no such module"),
        (dict(bits=4, only=['head'], skip=['fc']), 'no convolution or linear layer of Classifier'),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=f'FakeQuant: {message}'):
        FakeQuant(**options)(build_model(tiny_classifier(4)))


def test_a_layer_is_quantised_once():
    model = FakeQuant(bits=4)(build_model(tiny_classifier(4)))
    with pytest.raises(ValueError, match='backbone.conv1 is quantised already, to 8 bits. Give ea'):
        FakeQuant(bits=3)(model)


def test_a_shared_weight_is_quantised_in_both_layers_or_in_none():
    net = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
    net[2].weight = net[1].weight
    FakeQuant(bits=4)(net)
    net = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
    net[2].weight = net[1].weight
    with pytest.raises(ValueError, match='FakeQuant: 2 computes with the weight of 1, but'):
        FakeQuant(bits=4, skip=['2'])(net)


@pytest.mark.parametrize('form', ['lsq', 'points'])
def test_learned_numbers_lie_beside_the_plain_model(form):
    model = quantised(tiny_classifier(4), bits=3, form=form)
    plain = build_model(tiny_classifier(4))
    names = [key for key in model.state_dict() if not key.startswith('edits.')]
    assert names == list(plain.state_dict())
    own = {key.split('.')[1] for key in model.state_dict() if key.startswith('edits.')}
    assert 'backbone-layer1-0-conv1' in own and 'head-fc' not in own, 'ends are symmetric'
    assert all(
        bits == (8 if name in ('backbone.conv1', 'head.fc') else 3)
        for name, bits in bits_of(model).items()
    )
    assert FakeQuant(bits=3, form=form).in_weights


def test_activations():
    edit = FakeQuant(bits=4, acts=8)
    assert not edit.in_weights and FakeQuant(bits=None, acts=8).claims == 'shapes'
    model = edit(build_model(tiny_classifier(4)))
    assert ', 7 ReLUs to 8 bits' in edit.describe()
    x = torch.randn(2, 3, 16, 16)
    model.train()
    for _ in range(10):
        model(x)
    values = []
    model.backbone.layer1[0].relu2.register_forward_hook(lambda m, i, y: values.append(y))
    model.eval()(x)
    assert 2 < len(values[0].unique()) <= 256
    fixed = FakeQuant(bits=None, acts=dict(bits=2, clip=1))(build_model(tiny_classifier(4)))
    assert not any(key.startswith('edits.') for key in fixed.state_dict())
    with pytest.raises(
        ValueError, match='relu is quantised already, to 2 bits|stem.* is quantised'
    ):
        FakeQuant(bits=None, acts=8)(fixed)


def test_heads_that_see_several_levels_keep_their_activations():
    model = FakeQuant(bits=None, acts=8)(build_model(tiny_retinanet(4)))
    found = {name.split('.')[0] for name, m in model.named_modules() if hasattr(m, 'clip')}
    assert found == {'backbone'}
