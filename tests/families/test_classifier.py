"""Where things are in classifiers, also in those of others, and what samples must have."""

import pytest
import torch
from mmengine.structures import BaseDataElement
from torch import nn

from mmkd.families import classifier
from mmkd.tap import Recorder, parse_taps
from mmkd.testing import ToyNet, class_labels


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
