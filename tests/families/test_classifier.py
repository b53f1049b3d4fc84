"""Where things are in classifiers, also in those of others, and what samples must have."""

import pytest
import torch
from mmengine.structures import BaseDataElement
from torch import nn

from mmkd.families import classifier
from mmkd.tap import Recorder, parse_taps
from mmkd.teacher import build_model
from mmkd.testing import ToyNet, class_labels, classification_batch, tiny_classifier


def foreign(backbone=None):
    """A classifier with the parts of mmpretrain's: ``backbone``, ``neck``, ``head.fc``."""
    model = nn.Module()
    model.backbone, model.neck, model.head = backbone or nn.Identity(), nn.Flatten(), nn.Module()
    model.head.fc = nn.Linear(12, 3)
    model.forward = lambda x: model.head.fc(model.neck(model.backbone(x)))
    return model


def test_the_embedding_of_a_foreign_classifier_is_what_its_linear_layer_sees():
    model, x = foreign(), torch.randn(2, 3, 2, 2)
    assert classifier.logits_tap(model) == 'head.fc'
    recorder = Recorder(model, parse_taps(classifier.embedding_tap(model)))
    with recorder.record(x) as side:
        model.forward(x)
    assert torch.equal(side[classifier.embedding_tap(model)][0], x.flatten(1))


def test_stages_of_a_foreign_backbone_are_its_outputs():
    backbone = nn.Identity()
    backbone.out_indices = (1, 3)
    assert classifier.stage_taps(foreign(backbone)) == ['backbone[0]', 'backbone[1]']


@pytest.mark.parametrize(
    ('ask', 'what'),
    [
        (classifier.stem_tap, 'stem'),
        (classifier.stage_taps, 'stages'),
        (classifier.preact_taps, 'values before the last ReLU'),
        (classifier.preact_norms, 'BatchNorms before the last ReLU'),
    ],
)
def test_what_is_not_known_is_refused_in_a_sentence(ask, what):
    with pytest.raises(ValueError, match=f'Where the {what} of a Identity are .* taps yourself'):
        ask(foreign())


@pytest.mark.parametrize('ask', [classifier.logits_tap, classifier.embedding_tap])
def test_without_a_linear_layer_there_are_no_logits(ask):
    with pytest.raises(ValueError, match='Sequential has no linear layer head.fc'):
        ask(nn.Sequential())


def test_toys_are_classifiers_too():
    assert classifier.embedding_tap(ToyNet()) == 'head.fc@in[0]'


def test_labels_and_numbers_of_samples():
    samples = class_labels(torch.tensor([2, 0]))
    assert classifier.labels(samples).tolist() == [2, 0]
    assert classifier.sample_indices(samples).tolist() == [0, 1]
    assert classifier.sample_indices(samples).dtype == torch.long
    samples[1].set_gt_score(torch.tensor([0.1, 0.3, 0.6]))
    assert classifier.labels(samples).tolist() == [2, 2]


def test_samples_without_number_or_label_are_refused():
    samples = [*class_labels(torch.tensor([1])), BaseDataElement()]
    with pytest.raises(ValueError, match=r'samples without sample_idx\. .*mmkd.PackClassInputs'):
        classifier.sample_indices(samples)
    with pytest.raises(ValueError, match='samples without gt_label'):
        classifier.labels(samples)


def test_classes_are_known_where_a_checkpoint_named_them():
    model = ToyNet()
    assert classifier.classes(model) is None
    model.dataset_meta = dict(classes=['a', 'b'])
    assert classifier.classes(model) == ('a', 'b')


KINDS = ['resnet', 'wrn', 'vgg', 'mmdet']


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
