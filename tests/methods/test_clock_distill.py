"""CLoCKDistill: the sheet's numbers, and mmdet's DETRs that are asked about the objects."""

import copy

import pytest
import torch
from query_toys import batch, distiller, losses, network, steady

from mmkd.functional.box_masks import foreground_mask
from mmkd.methods.clock_distill import CLoCKDistill, memory_maps, memory_terms
from mmkd.teacher import build_model
from mmkd.testing import make_trace, tiny_retinanet

ALONE = {'classes': 0, 'boxes': 0, 'giou': 0}
QUERIES = {'loss_classes', 'loss_boxes', 'loss_giou'}
MEMORY = {'loss_foreground', 'loss_background'}


def test_memory_on_an_object_and_on_the_ground():  # CLK-1
    gap = torch.arange(16.0).view(1, 1, 4, 4)
    box = torch.tensor([[0.0, 0, 1, 1]])  # reaches the cells 0 and 1
    mask = foreground_mask(box, torch.zeros(1).long(), torch.tensor([[4.0, 4]]), (4, 4))
    found = memory_terms(gap, torch.zeros_like(gap), mask)
    assert float(found['foreground']) == pytest.approx(10.5)
    assert float(found['background']) == pytest.approx(99.8333333)
    factors = CLoCKDistill().factors
    total = sum(factors[term] * float(x) for term, x in found.items())
    assert total == pytest.approx(0.0005350, rel=1e-4)


def test_memory_without_objects():  # CLK-2
    gap = torch.arange(16.0).view(1, 1, 4, 4)
    found = memory_terms(gap, torch.zeros_like(gap), torch.zeros(1, 4, 4))
    assert float(found['foreground']) == 0
    assert float(found['background']) == pytest.approx(float(gap.square().sum()) / 16)


@pytest.mark.parametrize('last', [False, True])
def test_memory_as_maps(last):
    """Of all levels of the neck, or of DETR's last."""
    maps = [torch.zeros(2, 5, 4, 6), torch.zeros(2, 5, 2, 3)]
    rows = torch.arange(2 * 30 * 5.0).view(2, 30, 5)
    rows = rows[:, 24:] if last else rows
    tap = 'forward_decoder()@in[memory]'
    side = make_trace({'neck': maps, tap: rows}, inputs=torch.zeros(2, 3, 32, 48)).student
    found = memory_maps(side)
    assert [tuple(x.shape) for x in found] == [(2, 5, 4, 6), (2, 5, 2, 3)][last:]
    assert torch.equal(found[-1][1, :, 1, 0], rows[1, -3])


@pytest.mark.parametrize('name', ['dab', 'dino', 'ddq'])
def test_every_term_reaches_the_student_alone(name):
    student, teacher = network(name), network(name, 8, 1)
    found = losses(distiller(student, teacher, CLoCKDistill()))
    assert set(found) == QUERIES | MEMORY
    for key, value in found.items():
        student.zero_grad()
        ground = name != 'dab' or key != 'loss_background'  # its only map, 2 x 3, has none
        assert value.isfinite() and (float(value.detach()) > 0) == ground, key
        value.backward(retain_graph=True)
        felt = {n for n, p in student.named_parameters() if p.grad is not None and p.grad.any()}
        assert any(n.startswith('encoder') for n in felt) == ground
        assert any(n.startswith('decoder') for n in felt) == (key in QUERIES), key
        assert not any(n.startswith('dn_query_generator') for n in felt)


def test_equal_networks_have_nothing_to_learn():
    student = network('dino', layers=1)
    model = steady(distiller(student, copy.deepcopy(student), CLoCKDistill()))
    assert sum(float(x.detach()) for x in losses(model).values()) < 1e-3


@pytest.mark.parametrize('name', ['dab', 'dino'])
def test_images_without_objects(name):  # CLK-2
    model = distiller(network(name), network(name, 8, 1), CLoCKDistill())
    found = losses(model, batch(objects=0))
    for key, value in found.items():
        assert value.isfinite() and value.requires_grad, key
        assert (float(value.detach()) == 0) == (key != 'loss_background'), key


@pytest.mark.parametrize('name', ['dab', 'dino', 'ddq'])
@pytest.mark.parametrize('left', [0, 1])
def test_an_image_is_not_asked_more_since_another_has_more_objects(name, left):
    """Queries see each other: the answers at an object are those of its image alone."""
    model = steady(distiller(network(name), network(name, 8, 1), CLoCKDistill()))
    inputs, samples = batch(objects=3)
    samples[1].gt_instances = samples[1].gt_instances[:left]
    both = losses(model, (inputs, samples))
    each = [losses(model, (inputs[[i]], samples[i : i + 1])) for i in range(2)]
    for key in ('loss_classes', 'loss_foreground'):
        alone = sum(float(one[key].detach()) for one in each) / 2
        assert float(both[key].detach()) == pytest.approx(alone, rel=1e-4), key
    assert all(x.isfinite() and x.requires_grad for x in both.values())


def test_memory_of_any_two_detrs():
    """Other decoders, widths and levels; without the queries."""
    student, teacher = network('deformable'), network('dino', 8, 1)
    found = losses(distiller(student, teacher, CLoCKDistill(factors=ALONE)))
    assert set(found) == MEMORY and all(float(x.detach()) > 0 for x in found.values())
    wide = network('deformable', 8, 1, dims=32)
    model = distiller(student, wide, CLoCKDistill(factors=ALONE))
    assert len(model.objectives['it'].adapters) == 3
    assert all(float(x.detach()) > 0 for x in losses(model).values())


def test_queries_without_memory():
    factors = dict(foreground=0, background=0)
    for classes in ('softmax', 'sigmoid'):
        objective = CLoCKDistill(factors=factors, classes=classes)
        found = losses(distiller(network('dino'), network('dino', 8, 1), objective))
        assert set(found) == QUERIES


def test_weight_zero_is_stock_training():
    alone = network('dino')
    torch.manual_seed(0)
    wanted = alone(*batch(), mode='loss')
    model = distiller(network('dino'), network('dino', 8, 1), CLoCKDistill(weight=0))
    torch.manual_seed(0)
    found = model.loss(*batch())
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize(
    ('student', 'teacher', 'said'),
    [
        ('retina', 'dino', 'the student is RetinaNet with RetinaHead'),
        ('deformable', 'deformable', 'DAB-DETR, DINO and DDQ understand, but .* DeformableDETR'),
        ('dab', 'dino', 'memory is compared alone'),
        ('dino', 'four', "class counts: the student's head has 3 and the teacher's 4"),
    ],
)
def test_refused(student, teacher, said):
    kinds = dict(
        retina=lambda: build_model(tiny_retinanet(4)), four=lambda: network('dino', num_classes=4)
    )
    own, judge = (kinds.get(name, lambda n=name: network(n))() for name in (student, teacher))
    with pytest.raises(ValueError, match=said):
        distiller(own, judge, CLoCKDistill())


def test_encoders_that_could_not_be_probed():
    with pytest.raises(ValueError, match='encoders could not be probed; set the factors'):
        CLoCKDistill().setup(None, None)
