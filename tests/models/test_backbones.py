"""CIFAR backbones against the sizes of the literature, and where their parts are."""

import copy

import pytest
import torch

from mmkd.families import classifier
from mmkd.tap import Recorder, parse_taps
from mmkd.teacher import build_model
from mmkd.testing import classification_batch, tiny_classifier

KINDS = ['resnet', 'wrn', 'vgg', 'mmdet']


def resnet(depth, **widths):
    return dict(type='mmkd.CifarResNet', depth=depth, **widths)


def wrn(depth, k):
    return dict(type='mmkd.WideResNet', depth=depth, widen_factor=k)


def vgg(depth):
    return dict(type='mmkd.CifarVGG', depth=depth)


WIDE = dict(base_channels=64, stem_channels=32)
# Parameters for CIFAR-100 with the linear layer, as the benchmarks of the literature count them.
SIZES = [
    (resnet(20), 278324),
    (resnet(32), 472756),
    (resnet(56), 861620),
    (resnet(110), 1736564),
    (resnet(8, **WIDE), 1233540),
    (resnet(32, **WIDE), 7433860),
    (wrn(16, 1), 180916),
    (wrn(16, 2), 703284),
    (wrn(40, 1), 569780),
    (wrn(40, 2), 2255156),
    (vgg(8), 3965028),
    (vgg(13), 9462180),
]


@pytest.mark.parametrize(('backbone', 'size'), SIZES)
def test_sizes_are_those_of_the_benchmarks(backbone, size):
    with torch.device('meta'):
        features = build_model(copy.deepcopy(backbone))
    width = features.preact_norms[-1]
    linear = 100 * (features.get_submodule(width).num_features + 1)
    assert sum(p.numel() for p in features.parameters()) + linear == size


@pytest.mark.parametrize(
    ('backbone', 'shapes'),
    [
        (resnet(8, base_channels=4), [(4, 32), (8, 16), (16, 8)]),
        (resnet(14, base_channels=4, stem_channels=6), [(4, 32), (8, 16), (16, 8)]),
        (dict(wrn(10, 2), base_channels=4), [(8, 32), (16, 16), (32, 8)]),
        (dict(vgg(11), base_channels=4), [(8, 16), (16, 8), (32, 4), (32, 4)]),
    ],
)
def test_widths_and_sizes_of_the_stages(backbone, shapes):
    images = torch.randn(2, 3, 32, 32)
    maps = build_model(copy.deepcopy(backbone))(images)
    assert [(m.shape[1], m.shape[2]) for m in maps] == shapes
    one = build_model(dict(backbone, out_indices=(1,)))(images)
    assert [m.shape for m in one] == [maps[1].shape]


@pytest.mark.parametrize(
    ('backbone', 'message'),
    [
        (resnet(18), r'must be 6n \+ 2 .* found 18'),
        (resnet(2), r'must be 6n \+ 2 .* found 2'),
        (wrn(20, 1), r'must be 6n \+ 4 .* found 20'),
        (vgg(12), r'must be one of \[8, 11, 13, 16, 19\], found 12'),
    ],
)
def test_depths_that_do_not_exist_are_refused(backbone, message):
    with pytest.raises(ValueError, match=message):
        build_model(backbone)


def record(model, addresses):
    inputs, samples = classification_batch(4)
    recorder = Recorder(model, parse_taps(addresses))
    with recorder.record(inputs) as side:
        model(inputs, samples, mode='loss')
    return side


@pytest.mark.parametrize('kind', KINDS)
def test_stages_are_the_activated_values_before_the_activation(kind):
    """In training, where ReLUs in place would write over what a tap has seen."""
    model = build_model(tiny_classifier(kind=kind)).train()
    before, after = classifier.preact_taps(model), classifier.stage_taps(model)
    assert len(before) == len(after) == (3 if kind in ('resnet', 'wrn') else 4)
    side = record(model, [*before, *after, classifier.stem_tap(model)])
    for low, high in zip(before, after, strict=True):
        (x,), (y,) = side[low], side[high]
        assert x.min() < 0 and x.shape == y.shape
        if kind != 'wrn':
            torch.testing.assert_close(x.relu(), y)
    assert side[classifier.stem_tap(model)][0].shape[2] == side[after[0]][0].shape[2] * (
        2 if kind == 'vgg' else 1
    )
    first = next(model.backbone.parameters())
    felt = torch.autograd.grad(sum(side[tap][0].square().sum() for tap in before), first)
    assert felt[0].any()


def test_a_wide_resnet_normalises_a_stage_where_the_next_begins():
    model = build_model(tiny_classifier(kind='wrn')).train()
    before, after = classifier.preact_taps(model), classifier.stage_taps(model)
    side = record(model, [*before, *after, 'backbone'])
    torch.testing.assert_close(side[before[-1]][0].relu(), side['backbone'][-1])
    for tap, low, norm in zip(after, before, classifier.preact_norms(model), strict=True):
        x = side[tap][0]
        centred = (x - x.mean((0, 2, 3), keepdim=True)) / (
            x.var((0, 2, 3), keepdim=True, correction=0) + norm.eps
        ).sqrt()
        torch.testing.assert_close(side[low][0], centred, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('kind', KINDS)
def test_norms_are_as_wide_as_what_they_feed(kind):
    model = build_model(tiny_classifier(kind=kind))
    side = record(model, classifier.preact_taps(model))
    widths = [side[tap][0].shape[1] for tap in classifier.preact_taps(model)]
    norms = classifier.preact_norms(model)
    assert [norm.num_features for norm in norms] == widths
    assert all(isinstance(norm, torch.nn.BatchNorm2d) for norm in norms)


def test_of_a_bottleneck_the_third_norm_and_the_third_call():
    backbone = dict(type='mmdet.ResNet', depth=50, base_channels=4, norm_eval=False)
    config = tiny_classifier()
    model = build_model(dict(config, backbone=backbone))
    side = record(model, [*classifier.preact_taps(model), *classifier.stage_taps(model)])
    for low, high in zip(classifier.preact_taps(model), classifier.stage_taps(model), strict=True):
        torch.testing.assert_close(side[low][0].relu(), side[high][0])
    assert [n.num_features for n in classifier.preact_norms(model)] == [16, 32, 64, 128]
