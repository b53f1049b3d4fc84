"""Net2Net: wider and deeper networks compute the same, until noise is added."""

import pytest
import torch
from chain_toys import recipe
from mmengine.config import Config
from network_toys import made, saved

from mmkd.config import load_config
from mmkd.edits import same_outputs
from mmkd.edits.deepen import IdentityLayer
from mmkd.makers.net2net import preserved
from mmkd.makers.pictures import training_batches
from mmkd.teacher import build_model
from mmkd.testing import tiny_classifier, tiny_faster_rcnn, tiny_pspnet

MODELS = dict(cls=tiny_classifier(4), frcnn=tiny_faster_rcnn(4), pspnet=tiny_pspnet(4))
DEEPER = dict(deepen=['backbone.layer2', 'backbone.layer3'], images=12)


@pytest.fixture(scope='module')
def sources(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp('sources')
    found = {}
    for name, entry in MODELS.items():
        config = recipe(images)
        config.train_dataloader.dataset.pipeline.pop(1)  # the flip
        if name != 'cls':
            config = Config(dict(default_scope=entry['type'].partition('.')[0], model=entry))
        found[name] = saved(config, folder, name)
    return found


def grown(source, work_dir, **options):
    return made('Net2Net', source, work_dir, **options)


@pytest.mark.parametrize('name', MODELS)
@pytest.mark.parametrize('where', ['all', 'inner'])
def test_wider(name, where, sources, tmp_path):
    source, model = sources[name]
    _, wide = grown(source, tmp_path, widen=1.5, where=where)
    assert wide.backbone.layer2[0].conv1.out_channels == 12
    stem = wide.backbone.stem[-3] if name == 'pspnet' else wide.backbone.conv1
    assert stem.out_channels == (6 if where == 'all' else 4)
    assert 0 < preserved(model, wide) < 1e-6


def test_deeper(sources, tmp_path):
    source, model = sources['cls']
    product, deep = grown(source, tmp_path, widen=2, **DEEPER)
    config = load_config(product.config)
    assert [edit.type for edit in config.model.edits] == ['mmkd.Widths', 'mmkd.Deepen']
    assert sum(isinstance(m, IdentityLayer) for m in deep.modules()) == 2
    ((inputs, _),) = training_batches(config, model, 12, 12)
    with torch.no_grad():
        assert (model(inputs, mode='tensor') - deep(inputs, mode='tensor')).abs().max() < 1e-5
        # Its BatchNorm has the statistics of what the layer gets on the images.
        layer = deep.backbone.layer2[-1]
        x = deep.backbone.layer2[:-1](deep.backbone.layer1(deep.backbone.begin(inputs)))
        assert (layer.train()(x) - x).abs().max() < 1e-4


def test_copies_get_equal_gradients_without_noise(sources, tmp_path):
    source, _ = sources['cls']
    for noise, equal in ((0, True), (0.01, False)):
        _, wide = grown(source, tmp_path, widen=2, where='inner', noise=noise)
        wide.train()(torch.randn(2, 3, 8, 8), mode='tensor').square().sum().backward()
        conv = wide.backbone.layer1[0].conv1
        pairs = torch.cdist(conv.weight.flatten(1), conv.weight.flatten(1)) + 9 * torch.eye(8)
        twin = pairs.argmin(1)[4]  # of the first copy
        assert (conv.weight[4] == conv.weight[twin]).all() == equal
        grad = conv.weight.grad
        assert torch.allclose(grad[4], grad[twin], rtol=1e-4) == equal and grad[4].abs().max() > 0


def test_nothing_to_grow_is_the_network_itself(sources, tmp_path):
    source, model = sources['frcnn']
    product, same = grown(source, tmp_path)
    assert same_outputs(model, same)[0] == 0
    assert load_config(product.config).model.type == MODELS['frcnn']['type']


def test_seed_and_skip(sources, tmp_path):
    source, _ = sources['cls']
    first, other, skipped = (
        grown(source, tmp_path, widen=2, **options)[1]
        for options in ({}, dict(seed=1), dict(skip=['backbone.layer3']))
    )
    assert not torch.equal(first.backbone.conv1.weight, other.backbone.conv1.weight)
    assert skipped.backbone.layer3[0].conv1.out_channels == 16
    assert first.backbone.layer3[0].conv1.out_channels == 32


@pytest.mark.parametrize(
    'options, words',
    [
        (dict(widen=0.5), 'widen must be'),
        (dict(where='neck'), 'where must be'),
        (dict(noise=-1), 'noise must be'),
        (dict(widen=2, skip=['backbone', 'head']), 'no channels of Classifier are left'),
        (dict(deepen=['backbone.layer9']), 'has no stage'),
    ],
)
def test_bad_input(options, words, sources, tmp_path):
    with pytest.raises(ValueError, match=words):
        grown(sources['cls'][0], tmp_path, **options)


def test_a_network_that_is_not_the_same_is_refused_with_the_difference(sources):
    _, model = sources['cls']
    other = build_model(MODELS['cls'])
    with pytest.raises(
        ValueError, match=r'Net2Net: outputs of .* differ by up to [\d.]+ in float64'
    ):
        preserved(model, other)
