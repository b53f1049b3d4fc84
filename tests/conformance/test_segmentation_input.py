"""Bad input of every method for segmentors: one sentence at build or in the first step."""

import re

import pytest
import torch
from cases import method
from segmentation_toys import ToySegmentor, make_step, prepare, toy_for
from torch import nn

from mmkd.config import load_config
from mmkd.methods import names
from mmkd.registry import MODELS
from mmkd.teacher import build_model
from mmkd.testing import shrink, tiny_pspnet

#: without a teacher
REGULARISERS = {'ConfidencePenalty', 'CSKD', 'LSR'}
#: listen to several teachers, which their own tests give them
SEVERAL = {'EnDD', 'FeatureFusion'}
#: compare class logits by a softmax over classes
LOGITS = {
    'BPKD', 'CSCACE', 'DIST', 'ESKD', 'KD', 'L2Logit', 'LogitStandardization', 'NoisyTeacher', 'PRDKD',
    'SKDHolistic', 'SKDPixel', 'TSL', 'WSLD',
}  # fmt: skip
#: compare features before the classifier, unless told otherwise
FEATURES = {'AT', 'CIRKD', 'CIRKDMemory', 'IFVD', 'IntRAKD', 'KA', 'SKDPair'}
#: relations between regions, of the same features
RELATIONS = {'CCKD', 'DarkRank', 'GKD', 'PKT', 'RKD', 'SP'}
FEATURES |= RELATIONS
#: compare logits place by place, and a stage of the backbone
OTHERS = {'CWD', 'GradientRegions', 'MGD'}
#: match what the queries of two networks say
QUERIES = {'MatchedMasks'}
EVERY = LOGITS | FEATURES | OTHERS | QUERIES
LABELLED = RELATIONS | {name for name in EVERY if method(name).needs_ground_truth}
#: maps of another stride are what they are made for
ANY_STRIDE = {'KA'} | RELATIONS | QUERIES
#: read labels only if asked to
MASKING = {'AT', 'CWD', 'DIST', 'KD', 'MatchedMasks', 'MGD', 'SKDPixel', 'TSL'}


def one_sentence(error, name):
    message = str(error.value)
    assert not re.search(r'[.!?] +[A-Z]', message), message
    return message if name is None else message[message.index(name) :]


def test_every_method_for_segmentors_is_looked_at():
    found = {name for name in names() if 'segmentor' in method(name).families}
    assert found == EVERY | REGULARISERS | SEVERAL


@pytest.mark.parametrize('name', sorted(LOGITS | QUERIES | {'CWD'}))
def test_unequal_classes(name):
    with pytest.raises(ValueError) as error:
        method(name)().bind(toy_for(name, num_classes=3), toy_for(name, num_classes=5))
    message = one_sentence(error, name)
    assert re.search(r'student has 3 .*teacher (has )?5', message), message


@pytest.mark.parametrize('name', sorted(FEATURES | {'MGD'}))
def test_features_need_no_equal_classes(name):
    pair = ToySegmentor(4, num_classes=3), ToySegmentor(6, num_classes=5)
    objective = prepare(method(name)(), *pair)
    assert all(value.isfinite() for value in objective(make_step(objective, *pair)).values())


@pytest.mark.parametrize('name', sorted(LOGITS | REGULARISERS))
def test_one_sigmoid_output(name):
    pair = [ToySegmentor(num_classes=2, out_channels=1) for _ in range(2)]
    with pytest.raises(ValueError) as error:
        method(name)().bind(*pair)
    assert 'softmax over one class' in one_sentence(error, name)


@pytest.mark.parametrize('name', sorted(FEATURES | OTHERS))
def test_features_of_a_sigmoid_head(name):
    pair = [ToySegmentor(width, num_classes=2, out_channels=1) for width in (4, 6)]
    objective = prepare(method(name)(), *pair)
    labels = torch.randint(0, 2, (2, 32, 48), generator=torch.Generator().manual_seed(0))
    found = objective(make_step(objective, *pair, labels=labels))
    assert sum(float(value.detach()) for value in found.values()) > 0


@pytest.fixture(scope='module', params=['Segmenter', 'Mask2Former'])
def without_pixel_classifier(request):
    """A segmentor whose head classifies masks."""
    path = {
        'Segmenter': 'segmenter/segmenter_vit-s_mask_8xb1-160k_ade20k-512x512.py',
        'Mask2Former': 'mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024.py',
    }[request.param]
    head = shrink(load_config(f'mmseg::{path}').model.decode_head.to_dict(), 4)
    model = build_model(tiny_pspnet(4) | dict(decode_head=head, auxiliary_head=None))
    assert type(model.decode_head).__name__.startswith(request.param)
    return model


@pytest.mark.parametrize(
    'name', sorted({'CIRKD', 'CWD', 'MGD', 'SKDPair', 'AT', 'IFVD', 'IntRAKD'})
)
def test_backbones_below_heads_that_classify_masks(name, without_pixel_classifier):
    model = without_pixel_classifier
    tap = 'backbone[3]'
    objective = prepare(method(name)(student=tap, teacher=tap), model, build_model(tiny_pspnet(8)))
    assert objective.pairs == [(0, 0)]


@pytest.mark.parametrize(
    ('name', 'options'),
    [
        *((name, {}) for name in sorted(LABELLED)),
        *((name, dict(mask_ignore=True)) for name in sorted(MASKING)),
    ],
)
def test_missing_labels(name, options):
    pair = toy_for(name, 4), toy_for(name, 6)
    objective = prepare(method(name)(**options), *pair)
    trace = make_step(objective, *pair)
    for sample in trace.samples:
        del sample.gt_sem_seg
    with pytest.raises(ValueError) as error:
        objective(trace)
    assert 'without gt_sem_seg; add LoadAnnotations' in one_sentence(error, None)


@pytest.mark.parametrize('name', sorted(LABELLED))
def test_labels_out_of_range_stop_the_first_step_only(name):
    pair = ToySegmentor(4), ToySegmentor(6)
    objective = prepare(method(name)(), *pair)
    wild = torch.randint(0, 3, (2, 32, 48), generator=torch.Generator().manual_seed(0))
    wild[:, :8] = 7
    trace = make_step(objective, *pair, labels=wild)
    with pytest.raises(ValueError) as error:
        objective(trace)
    message = one_sentence(error, name)
    assert re.search('labels reach from 0 to 7, .* 3 classes and ignore_index is 255', message)
    objective(make_step(objective, *pair))
    later = objective(trace)
    assert all(value.isfinite() for value in later.values())
    if 'ignore_index' in method(name).__init__.__annotations__:
        own = prepare(method(name)(ignore_index=7), *pair)
        assert all(value.isfinite() for value in own(trace).values())


@pytest.mark.parametrize('name', sorted(EVERY - ANY_STRIDE))
def test_unequal_strides(name):
    pair = ToySegmentor(4, stride=16), ToySegmentor(6)
    with pytest.raises(ValueError) as error:
        objective = prepare(method(name)(), *pair)
        objective(make_step(objective, *pair))
    message = str(error.value)
    assert name in message and re.search('stride|size', message), message


def test_no_segmentor_at_all():
    for name in sorted(EVERY - RELATIONS - {'AT', 'CWD', 'MGD'}):
        with pytest.raises(ValueError) as error:
            method(name)().bind(nn.Identity(), nn.Identity())
        assert 'Identity' in one_sentence(error, name)


def test_registered():
    assert all(MODELS.get(f'mmkd.{name}') for name in EVERY)
