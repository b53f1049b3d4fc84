"""Heads of two towers, entered half-way."""

import pytest
import torch
from detection_toys import detector, samples
from torch import nn

from mmkd.families.comparable import Misfit
from mmkd.families.dense import targets_tap
from mmkd.families.towers import (
    assignment,
    carry_on,
    check_towers,
    check_widths,
    features_taps,
    tower_kind,
    widths,
)
from mmkd.schedule import Progress
from mmkd.tap import Recorder, Trace, parse_taps

NAMES = {'retinanet': 'RetinaHead', 'atss': 'ATSSHead', 'gfl': 'GFLHead', 'fcos': 'FCOSHead'}


def deep(name, seed=0, **head):
    return detector(name, seed, **dict(stacked_convs=3) | head).eval()


@pytest.mark.parametrize('name', [*NAMES, 'frcnn'])
def test_kinds_and_widths(name):
    assert tower_kind(detector(name)) == NAMES.get(name)
    if name in NAMES:
        assert widths(deep(name)) == [[8, 8, 8], [8, 8, 8]]


def test_a_head_with_one_method_of_its_own_is_unknown():
    model = detector('gfl')
    model.bbox_head.__class__ = type('Own', (type(model.bbox_head),), dict(get_targets=len))
    assert tower_kind(model) is None
    assert tower_kind(nn.Identity()) is None


@pytest.mark.parametrize(
    ('student', 'teacher', 'changes', 'said'),
    [
        ('retinanet', 'atss', {}, 'needs two heads of one kind'),
        ('frcnn', 'frcnn', {}, 'needs two heads of one kind'),
        ('gfl', 'gfl', dict(reg_max=8), 'reg_max: .* 16 and .* 8'),
        ('fcos', 'fcos', dict(stacked_convs=2), r'depths: .* \[1, 1\] and .* \[2, 2\]'),
        ('fcos', 'fcos', dict(num_classes=5), 'class counts'),
    ],
)
def test_unequal_towers(student, teacher, changes, said):
    with pytest.raises(Misfit, match=said):
        check_towers('CrossKD', detector(student), detector(teacher, 1, **changes))


def test_widths_where_the_student_enters():
    own, wide = deep('fcos'), deep('fcos', feat_channels=16)
    check_towers('CrossKD', own, wide)
    check_widths('CrossKD', own, wide, 0)  # both begin with eight channels
    for stop in (1, 3):
        with pytest.raises(Misfit, match=r'widths: .* \[8, 8\] and .* \[16, 16\]'):
            check_widths('CrossKD', own, wide, stop)


@pytest.mark.parametrize('stop', [0, 1, 3])
@pytest.mark.parametrize('name', NAMES)
def test_carried_on_from_its_own_features_a_head_says_what_it_says(name, stop):
    model = deep(name)
    taps = features_taps(model, stop, activated=True)
    inputs = torch.randn(1, 3, 64, 64)
    with torch.no_grad(), Recorder(model, parse_taps(taps)).record(inputs) as side:
        outputs = model(inputs)
        towers = [side[tap] for tap in taps]
        found = carry_on(model, towers if stop else towers * 2, stop)
    wanted = [m for part in outputs for m in part]
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)
    assert list(model.bbox_head.cls_convs.children()), 'the head is as it was'


def test_addresses():
    model = deep('gfl')
    assert features_taps(model, 0) == ['neck']
    assert features_taps(model, 2) == [
        'bbox_head.cls_convs.1.activate@in[0]',
        'bbox_head.reg_convs.1.activate@in[0]',
    ]
    assert features_taps(model, 2, 'after') == ['bbox_head.cls_convs.1', 'bbox_head.reg_convs.1']


@pytest.mark.parametrize('name', NAMES)
def test_the_assignment_is_that_of_the_students_own_loss(name):
    model = detector(name).train()
    batch = samples()
    inputs = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    with Recorder(model, parse_taps(targets_tap(model))).record(inputs) as side:
        model(inputs, batch, mode='loss')
    trace = Trace(inputs, batch, side, None, Progress(0, 1))
    weights, positive, count = assignment(trace)
    assert weights.shape == positive.shape == (2, weights.shape[1]) and positive.any()
    assert not positive[weights == 0].any(), 'what is ignored is no object'
    if name == 'fcos':
        assert 0 < float(count) <= int(positive.sum()), 'a centerness is at most 1'
    else:
        assert float(count) == pytest.approx(int(positive.sum()))
