"""Mimic against crops cut out one by one, the sheet's numbers and real tiny detectors."""

import copy
from math import ceil, floor

import pytest
import torch
from detection_toys import detector, step, total
from torch.nn import functional as F

from mmkd.families import two_stage
from mmkd.methods.mimic import Mimic
from mmkd.rows.regions import regions
from mmkd.testing import boxes, make_trace, ready


def crops_one_by_one(student, teacher, rois, stride, norm):
    """The equation, literally, in float64."""
    total, (height, width) = 0.0, student.shape[2:]
    for n, x1, y1, x2, y2 in rois.tolist():
        left, top = (
            min(max(floor(x1 / stride), 0), width - 1),
            min(max(floor(y1 / stride), 0), height - 1),
        )
        right = min(max(ceil(x2 / stride), left + 1), width)
        bottom = min(max(ceil(y2 / stride), top + 1), height)
        u, v = (x[int(n), :, top:bottom, left:right].double() for x in (teacher, student))
        m = {'all': u.numel(), 'spatial': u[0].numel(), 'none': 1}[norm]
        total += float((u - v).square().sum()) / m
    return total / (2 * len(rois))


def mimic_on(maps, gt, **options):
    """Objective without adapters on maps of stride 8, regions from the ground truth."""
    options = dict(proposal_source='gt', adapt=None, student='neck', teacher='neck') | options
    objective = Mimic(**options)
    trace = make_trace({'neck': maps[0]}, {'neck': maps[1]}, boxes(*gt))
    objective.regions.maps_at = ({'neck'}, {'neck'})
    return ready(objective, trace), trace


def random_maps(size=(6, 9)):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, *size, generator=generator) for _ in range(2)]


GT = [[[3, 5, 30, 20], [-9, 0, 8, 8], [60, 40, 90, 70]], [[16, 16, 17, 17], [0, 0, 72, 48.1]]]


@pytest.mark.parametrize('norm', ['all', 'spatial', 'none'])
def test_crops(norm):
    maps = random_maps()
    objective, trace = mimic_on(maps, GT, norm=norm)
    rois = regions(trace, 'gt', 1)
    wanted = crops_one_by_one(*maps, rois, 8, norm)
    found = objective(trace)
    assert float(found['loss']) == pytest.approx(wanted, rel=1e-5)
    assert found['regions'] == 5
    twice, trace = mimic_on(maps, [x * 2 for x in GT], norm=norm)  # MIM-2
    torch.testing.assert_close(twice(trace)['loss'], found['loss'])


@pytest.mark.parametrize(('norm', 'value'), [('none', 2.0), ('all', 0.71875), ('spatial', 1.4375)])
def test_two_regions(norm, value):  # MIM-1
    teacher = torch.zeros(1, 2, 4, 4)
    teacher[0, :, 0, 0] = 1.5**0.5
    teacher[0, :, 3, 3] = 2.5**0.5
    objective, trace = mimic_on(
        [torch.zeros(1, 2, 4, 4), teacher], [[[0, 0, 16, 16], [24, 24, 32, 32]]], norm=norm
    )
    assert float(objective(trace)['loss']) == pytest.approx(value, rel=1e-5)


def test_only_the_regions_matter():  # MIM-3, MIM-5
    maps = random_maps()
    maps[0].requires_grad_()
    objective, trace = mimic_on(maps, [[[8, 8, 24, 40], [16, 0, 40, 9]], []])
    inside = torch.zeros(2, 6, 9, dtype=torch.bool)
    inside[0, 1:5, 1:3] = inside[0, 0:2, 2:5] = True
    objective(trace)['loss'].backward()
    assert torch.equal(maps[0].grad.abs().sum(1) > 0, inside)
    agree = torch.where(inside[:, None], maps[1], maps[0]).detach()
    objective, trace = mimic_on([agree, maps[1]], [[[8, 8, 24, 40], [16, 0, 40, 9]], []])
    assert objective(trace)['loss'] == 0


def test_roialign():  # MIM-4
    maps = random_maps((8, 8))
    objective, trace = mimic_on(maps, [[[0, 0, 64, 64]], []], mode='roialign', pooled=8)
    wanted = 0.5 * F.mse_loss(maps[0][0], maps[1][0])
    torch.testing.assert_close(objective(trace)['loss'], wanted, rtol=1e-4, atol=1e-5)
    none, _ = mimic_on(maps, GT, mode='roialign', norm='none', pooled=3)
    spatial, _ = mimic_on(maps, GT, mode='roialign', norm='spatial', pooled=3)
    torch.testing.assert_close(none(trace)['loss'], 9 * spatial(trace)['loss'])


@pytest.mark.parametrize('mode', ['crop', 'roialign'])
def test_no_region(mode):
    maps = random_maps()
    maps[0].requires_grad_()
    objective, trace = mimic_on(maps, [[], []], mode=mode, adapt='conv1x1')
    objective(trace)['loss'].backward()
    assert (maps[0].grad == 0).all()
    assert all(p.grad is not None for p in objective.parameters())


@pytest.mark.parametrize(
    ('name', 'options'),
    [
        ('frcnn', {}),
        ('frcnn', dict(fg_fraction=0.25, proposals=20)),
        ('cascade', dict(proposal_source='teacher', proposals=10)),
        ('retinanet', {}),
        ('gfl', dict(proposal_source='teacher')),
        ('fcos', dict(mode='roialign')),
        ('frcnn', dict(mode='roialign', proposal_source='gt')),
    ],
)
def test_real_detectors(name, options):
    student, teacher = detector(name), detector(name, 1)
    objective = Mimic(**options)
    losses, trace = step(objective, student, teacher)
    total(losses).backward()
    assert student.backbone.conv1.weight.grad.abs().sum() > 0
    adapter = objective.adapters['0'].conv.weight
    assert all(p.grad is not None for p in objective.parameters()) and adapter.shape[:2] == (8, 8)
    rois = objective.rois(trace)
    counts = torch.bincount(rois[:, 0].long(), minlength=2)
    assert 0 < counts.max() <= objective.regions.count and losses['kd.o.regions'] == len(rois)
    assert len(objective.strides) == (5 if 'rpn_head' not in dict(student.named_children()) else 4)
    some, *maps = objective.views(trace)
    assert len(maps) == len(objective.strides)
    assert torch.bincount(some.boxes[:, 0].long()).max() <= 20
    assert (some.boxes[:, None] == rois).all(-1).any(1).all()
    if objective.regions.source == 'student' and not options:
        sampled = name == 'frcnn' and trace.student[two_stage.rois_tap(student)][0]
        assert name != 'frcnn' or torch.equal(rois, sampled)  # fewer than 256 an image


def test_same_network():
    student = detector('frcnn')
    losses, _ = step(Mimic(adapt='auto'), student, copy.deepcopy(student), train=False)
    assert float(losses['kd.o.loss'].detach()) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: Mimic(proposals=0), 'proposals must be a whole number of at least 1, found 0'),
        (lambda: Mimic(pooled=0), 'pooled must be a whole number of at least 1, found 0'),
        (lambda: Mimic(fg_fraction=2), r'fg_fraction must be a finite number from 0 to 1'),
        (lambda: Mimic(norm='c'), 'norm must be one of'),
        (lambda: Mimic(mode='c'), 'mode must be one of'),
        (lambda: Mimic(proposal_source='rpn'), 'proposal_source must be one of'),
        (
            lambda: Mimic(fg_fraction=0.5).bind(*[detector('retinanet')] * 2),
            'a two-stage student samples',
        ),
    ],
)
def test_bad_input(build, message):
    with pytest.raises(ValueError, match=message):
        build()
