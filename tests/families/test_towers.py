"""Heads of two towers, entered half-way."""

import copy

import pytest
import torch
from detection_toys import _config, detector, in_epoch, samples, settled
from mmengine.config import Config
from torch import nn

from mmkd.families.assignments import assignment_taps
from mmkd.families.comparable import Misfit
from mmkd.families.towers import (
    activations,
    assignment,
    carry_on,
    check_towers,
    depths,
    ends,
    features_taps,
    tower_kind,
    widths,
)
from mmkd.schedule import Progress
from mmkd.tap import Recorder, Trace, parse_taps
from mmkd.teacher import build_model

NAMES = {'retinanet': 'RetinaHead', 'atss': 'ATSSHead', 'gfl': 'GFLHead', 'fcos': 'FCOSHead'}
NAMES |= {'rtmdet': 'RTMDetHead', 'yolox': 'YOLOXHead'}
#: heads with towers of each level, in their forms
EACH = {
    'rtmdet': {},
    'rtmdet alone': dict(share_conv=False, pred_kernel_size=3, exp_on_reg=False),
    'rtmdet with objects': dict(with_objectness=True),
    'yolox': {},
    'yolox separable': dict(use_depthwise=True),
}


def deep(name, seed=0, **head):
    options = dict(stacked_convs=3) | EACH.get(name, {}) | head
    return settled(detector(name.split()[0], seed, **options)).eval()


def plain_rtmdet(seed=0):
    config = copy.deepcopy(_config('rtmdet'))
    for key in ('share_conv', 'exp_on_reg'):
        config.bbox_head.pop(key)
    config.bbox_head.update(type='RTMDetHead', stacked_convs=3)
    return settled(build_model(Config(dict(model=config, default_scope='mmdet')))).eval()


@pytest.mark.parametrize('name', [*NAMES, 'frcnn'])
def test_kinds_and_widths(name):
    assert tower_kind(detector(name)) == NAMES.get(name)
    if name in NAMES:
        model, levels = deep(name), 3 if name in ('rtmdet', 'yolox') else 1
        assert depths(model) == [[3] * levels] * 2
        assert widths(model, 2) == [[8] * levels] * 2 and widths(model, 0) == [[8]]


def test_rtmdet_with_one_tower_for_all_levels():
    model = plain_rtmdet()
    assert tower_kind(model) == 'RTMDetHead' and depths(model) == [[3], [3]]
    check_towers('CrossKD', model, deep('rtmdet'))  # whose box codes may differ


def test_a_head_with_one_method_of_its_own_is_unknown():
    model = detector('gfl')
    model.bbox_head.__class__ = type('Own', (type(model.bbox_head),), dict(get_targets=len))
    assert tower_kind(model) is None
    assert tower_kind(nn.Identity()) is None
    model = detector('yolox')
    model.bbox_head.__class__ = type('Own', (type(model.bbox_head),), dict(forward_single=len))
    assert tower_kind(model) is None


@pytest.mark.parametrize(
    ('student', 'teacher', 'changes', 'said'),
    [
        ('retinanet', 'atss', {}, 'needs two heads of one kind'),
        ('frcnn', 'frcnn', {}, 'needs two heads of one kind'),
        ('gfl', 'gfl', dict(reg_max=8), 'reg_max: .* 16 and .* 8'),
        ('fcos', 'fcos', dict(stacked_convs=2), r'depths: .* \[1, 1\] and .* \[2, 2\]'),
        ('yolox', 'yolox', dict(stacked_convs=2), r'depths: .* \[1, 1\] and .* \[2, 2\]'),
        ('rtmdet', 'yolox', {}, 'needs two heads of one kind'),
        ('rtmdet', 'rtmdet', dict(num_classes=5), 'class counts'),
        ('yolox', 'yolox', dict(strides=(8, 16, 64)), 'strides'),
        ('fcos', 'fcos', dict(num_classes=5), 'class counts'),
    ],
)
def test_unequal_towers(student, teacher, changes, said):
    with pytest.raises(Misfit, match=said):
        check_towers('CrossKD', detector(student), detector(teacher, 1, **changes))


def test_widths_may_differ():
    own, wide = deep('fcos'), deep('fcos', feat_channels=16)
    check_towers('CrossKD', own, wide)
    assert [widths(model, 1) for model in (own, wide)] == [[[8], [8]], [[16], [16]]]


@pytest.mark.parametrize('stop', [0, 1, 3])
@pytest.mark.parametrize('name', [*list(NAMES)[:4], *EACH, 'plain rtmdet'])
def test_carried_on_from_its_own_features_a_head_says_what_it_says(name, stop):
    model = plain_rtmdet() if name == 'plain rtmdet' else deep(name)
    inputs = torch.randn(1, 3, 64, 64)
    taps = sum(features_taps(model, stop), [])
    with torch.no_grad(), Recorder(model, parse_taps(taps)).record(inputs) as side:
        outputs = model(inputs)
    towers = ends(side, stop)
    if stop:
        acts = activations(model, stop)
        both = zip(acts, towers, strict=True)
        towers = [[act(x.clone()) for act, x in zip(*two, strict=True)] for two in both]
    with torch.no_grad():
        found = carry_on(model, towers if stop else towers * 2, stop)
    wanted = [m for part in outputs for m in part]
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)
    again = [m for part in model(inputs) for m in part]
    assert all(map(torch.equal, again, wanted)), 'the head is as it was'


def test_addresses():
    model = deep('gfl')
    assert features_taps(model, 0) == [['neck']]
    assert features_taps(model, 2) == [
        ['bbox_head.cls_convs.1.activate@in[0]'],
        ['bbox_head.reg_convs.1.activate@in[0]'],
    ]
    assert features_taps(model, 2, True) == [['bbox_head.cls_convs.1'], ['bbox_head.reg_convs.1']]
    assert features_taps(deep('rtmdet'), 1, True)[1] == [
        f'bbox_head.reg_convs.{level}.0' for level in range(3)
    ]
    assert features_taps(deep('yolox separable'), 1)[0] == [
        f'bbox_head.multi_level_cls_convs.{level}.0.pointwise_conv.activate@in[0]'
        for level in range(3)
    ]
    bare = deep('retinanet')
    del bare.bbox_head.cls_convs[1].activate
    bare.bbox_head.cls_convs[1].with_activation = False
    assert features_taps(bare, 2)[0] == ['bbox_head.cls_convs.1']
    assert isinstance(activations(bare, 2)[0][0], nn.Identity)


@pytest.mark.parametrize('name', NAMES)
def test_the_assignment_is_that_of_the_students_own_loss(name):
    model = detector(name).train()
    batch = samples()
    inputs = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    with in_epoch(0), Recorder(model, parse_taps(assignment_taps(model))).record(inputs) as side:
        model(inputs, batch, mode='loss')
    trace = Trace(inputs, batch, side, None, Progress(0, 1))
    weights, positive, count = assignment(trace)
    assert weights.shape == positive.shape == (2, weights.shape[1]) and positive.any()
    assert not positive[weights == 0].any(), 'what is ignored is no object'
    if name == 'fcos':
        assert 0 < float(count) <= int(positive.sum()), 'a centerness is at most 1'
    else:
        assert float(count) == pytest.approx(int(positive.sum()))
