"""DETRDistill: the sheet's numbers, and mmdet's DETRs whose queries are matched."""

import pytest
import torch
from query_toys import batch, distiller, losses, network, steady
from torch.nn import functional as F

from mmkd.families import queries
from mmkd.functional.set_matching import assign, pair_costs
from mmkd.methods.detr_distill import (
    FACTORS,
    DETRDistill,
    attended,
    best_queries,
    feature_distance,
)
from mmkd.teacher import Teacher, build_model
from mmkd.teachers import Ensemble
from mmkd.testing import tiny_retinanet

MATCHED = dict(features=0, prior=0)
ALONE = {'loss_classes', 'loss_boxes', 'loss_giou'}


def test_features_where_queries_look():  # DDT-3
    t = torch.tensor([[2.0, 0, -1], [0, 1, 1]], dtype=torch.float64).view(1, 2, 1, 3)
    s = torch.tensor([[1.0, 0, 0], [0, 1, 0]], dtype=torch.float64).view(1, 2, 1, 3)
    q = torch.tensor([[[[1.0, 0], [1, 1]]]], dtype=torch.float64)
    weight = attended(t, q, torch.tensor([[[0.8, 0.5]]], dtype=torch.float64))
    assert weight.flatten().tolist() == pytest.approx([1, 0.3064907, 0.0086689], rel=1e-5)
    assert float(feature_distance(s, t, weight)) == pytest.approx(0.1666917, rel=1e-6)
    assert float(feature_distance(s, t, torch.ones_like(weight))) == 0.5
    cosine = F.cosine_similarity(t, q[0, 0, 0].view(1, 2, 1, 1)) * 0.8
    cosine += F.cosine_similarity(t, q[0, 0, 1].view(1, 2, 1, 1)) * 0.5
    assert cosine.flatten().tolist() == pytest.approx([1.1535534, 0.3535534, -0.5656854], rel=1e-6)


def test_the_best_queries():
    """Scores times the best IoU; a query may come twice; without objects the scores."""
    probabilities = torch.tensor([[[[0.9, 0.1], [0.2, 0.8]]] * 2]).view(1, 2, 2, 2)
    places = torch.tensor([[0.25, 0.5, 0.5, 1.0], [0.5, 0.5, 1, 1]]).expand(1, 2, 2, 4)
    hidden = torch.arange(8.0).view(1, 2, 2, 2)
    objects = torch.tensor([[0.25, 0.5, 0.5, 1.0]]).expand(2, 1, 4)
    real = torch.tensor([[True], [False]])
    found, quality = best_queries(
        probabilities, places, hidden, (objects, torch.zeros(2, 1).long(), real)
    )
    assert quality[0, 0].tolist() == pytest.approx([0.9, 0.4, 0.1, 0.1])
    assert quality[0, 1].tolist() == pytest.approx([0.9, 0.8, 0.2, 0.1])
    assert found[0, 0].tolist() == [[0, 1], [2, 3], [2, 3], [0, 1]]


# ---------------------------------------------------------------------------------- real networks


@pytest.mark.parametrize(
    'name', ['detr', 'conditional', 'dab', 'deformable', 'two_stage', 'dino', 'ddq']
)
def test_every_term_reaches_the_student_alone(name):
    student, teacher = network(name), network(name, 8, 1)
    model = distiller(student, teacher, DETRDistill())
    found = losses(model)
    assert set(found) == ALONE | {'loss_features'} | {
        f'loss_prior_{x}' for x in ('cls', 'bbox', 'iou')
    }
    for key, value in found.items():
        student.zero_grad()
        assert value.isfinite() and float(value.detach()) > 0, key
        value.backward(retain_graph=True)
        felt = {n for n, p in student.named_parameters() if p.grad is not None and p.grad.any()}
        assert any(n.startswith('decoder') for n in felt) == (key != 'loss_features'), key
        assert any(n.startswith('backbone') for n in felt), key
    assert not any(p.grad is not None for p in teacher.parameters())


@pytest.mark.parametrize('name', ['detr', 'dino', 'ddq'])
def test_a_step_is_the_equation_written_out(name):
    """Matched layer by layer, image by image, without denoising and dense queries."""
    student, teacher = network(name), network(name, 8, 1, num_queries=8)
    model = distiller(student, teacher, DETRDistill(factors=MATCHED))
    seen = {}
    for who, net in (('s', student), ('t', teacher)):
        forward = net.bbox_head.forward

        def listen(*a, f=forward, w=who, **k):
            seen[w] = [x.detach() for x in f(*a, **k)]
            return f(*a, **k)

        net.bbox_head.forward = listen
    found = losses(model)
    for net in (student, teacher):
        del net.bbox_head.forward
    first = 0 if name == 'detr' else 8
    z, b = (x[:, :, first : first + 6].double() for x in seen['s'])
    q, t = queries.foreground(teacher, seen['t'][0]).double(), seen['t'][1].double()
    wanted = dict.fromkeys(ALONE, 0.0)
    from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_overlaps

    for layer in range(len(z)):
        for i in range(2):
            logits = queries.binary_logits(student, z[layer, i])
            target = bbox_cxcywh_to_xyxy(t[layer, i]).clamp(0, 1)
            centre = (target[:, :2] + target[:, 2:]) / 2
            target = torch.cat((centre, target[:, 2:] - target[:, :2]), 1)
            costs = pair_costs(logits, b[layer, i], q[layer, i], target, FACTORS)
            for row, column in enumerate(assign(queries=costs)['queries'].tolist()):
                p = q[layer, i, column]
                cross = F.binary_cross_entropy_with_logits(logits[row], p, reduction='sum')
                cross -= F.binary_cross_entropy(p, p, reduction='sum')
                places = [bbox_cxcywh_to_xyxy(x) for x in (b[layer, i, row], target[column])]
                overlap = bbox_overlaps(*(x[None] for x in places), mode='giou', eps=1e-12)
                wanted['loss_classes'] += float(cross) / 12
                wanted['loss_boxes'] += float((b[layer, i, row] - target[column]).abs().sum()) / 12
                wanted['loss_giou'] += float(1 - overlap) / 12
    wanted['loss_boxes'] *= 5
    wanted['loss_giou'] *= 2
    got = {key: float(found[key].detach()) for key in ALONE}
    assert got == pytest.approx(wanted, rel=1e-3)


def test_more_queries_than_the_teacher_count_nothing():
    student, teacher = network('dino', num_queries=9), network('dino', 8, 1)
    found = losses(distiller(student, teacher, DETRDistill()))
    assert all(x.isfinite() and float(x.detach()) > 0 for x in found.values())


def test_equal_networks_have_nothing_to_learn():
    import copy

    student = network('deformable')
    model = steady(distiller(student, copy.deepcopy(student), DETRDistill(factors=dict(prior=0))))
    assert sum(float(x.detach()) for x in losses(model).values()) < 1e-4


def test_factors_are_costs_too():
    """With a classes' factor of 0 the pairs are those of the boxes."""
    student, teacher = network('deformable'), network('deformable', 8, 1)
    some, other = (
        losses(steady(distiller(student, teacher, DETRDistill(factors=dict(MATCHED, classes=c)))))
        for c in (0.0, 100.0)
    )
    assert float(some['loss_boxes'].detach()) <= float(other['loss_boxes'].detach())


@pytest.mark.parametrize('negatives', ['all', 'box', 'none'])
def test_queries_without_an_object(negatives):
    """Two objects an image: of six pairs two teach classes, and boxes if negatives do not."""
    z = torch.zeros(1, 2, 6, 3)
    b = torch.full((1, 2, 6, 4), 0.5)
    partners = torch.arange(6).expand(1, 2, 6)
    objects = torch.tensor([0, -1, 1, -1, -1, -1]).expand(1, 2, 6)
    q = torch.full((1, 2, 6, 3), 0.5)
    q[:, :, 0] = 0.9
    t = b.clone()
    t[:, :, 1, 0] = 0.4
    objective = DETRDistill(negatives=negatives)
    found = objective.matched((z, b, q, t), partners, objects)
    one = 3 * (0.9 * torch.tensor(1.8).log() + 0.1 * torch.tensor(0.2).log())
    classes, shift = (6, 6) if negatives == 'all' else (2, 6) if negatives == 'box' else (2, 2)
    assert float(found['loss_classes']) == pytest.approx(float(one) / classes, rel=1e-5)
    wanted = 0.0 if negatives == 'none' else 5 * 0.1 / shift
    assert float(found['loss_boxes']) == pytest.approx(wanted, abs=1e-6)
    student, teacher = network('deformable'), network('deformable', 8, 1)
    options = dict(negatives=negatives, factors=MATCHED)
    whole = losses(distiller(student, teacher, DETRDistill(**options)))
    assert all(x.isfinite() for x in whole.values())


@pytest.mark.parametrize('assignment', ['teacher', 'own'])
def test_whose_assignment_the_prior_has(assignment, monkeypatch):
    from mmkd.methods import detr_distill

    asked = []
    monkeypatch.setattr(
        detr_distill, 'assign', lambda **costs: asked.append([*costs]) or assign(**costs)
    )
    model = distiller(
        network('deformable'), network('deformable', 8, 1), DETRDistill(assignment=assignment)
    )
    found = losses(model)
    assert ('objects of the student' in asked[0]) == (assignment == 'own') and len(asked) == 1
    assert float(found['loss_prior_bbox'].detach()) > 0


def test_costs_of_the_matching_keep_no_graph(monkeypatch):
    """They hold all pairs of queries of all layers."""
    from mmkd.methods import detr_distill

    costs = {}
    monkeypatch.setattr(
        detr_distill, 'assign', lambda **found: costs.update(found) or assign(**found)
    )
    model = distiller(
        network('detr'),
        network('detr', 8, 1),
        DETRDistill(assignment='own', factors={'features': 0}),
    )
    losses(model)
    assert len(costs) == 3 and not any(x.requires_grad for x in costs.values())


def test_decoders_of_other_depth():
    for depths in ((2, 3), (3, 2)):
        student = network('dino', layers=depths[0])
        teacher = network('dino', 8, 1, layers=depths[1])
        found = losses(distiller(student, teacher, DETRDistill()))
        assert all(x.isfinite() and float(x.detach()) > 0 for x in found.values())


def test_softmax_beside_sigmoid_and_any_decoder():
    pairs = (('detr', 'dino'), ('dino', 'detr'), ('deformable', 'dab'))
    for student, teacher in pairs:
        own, judge = network(student), network(teacher, 8, 1)
        found = losses(distiller(own, judge, DETRDistill(factors=MATCHED)))
        assert set(found) == ALONE
        assert all(x.isfinite() and float(x.detach()) > 0 for x in found.values())
        with pytest.raises(ValueError, match="set factors={'prior': 0}, and the queries"):
            distiller(own, judge, DETRDistill())


def test_images_without_objects():
    model = distiller(network('deformable'), network('deformable', 8, 1), DETRDistill())
    found = losses(model, batch(objects=0))
    for key, value in found.items():
        assert value.requires_grad and value.isfinite()
        assert (float(value.detach()) == 0) == key.startswith('loss_prior'), key


def test_weight_zero_is_stock_training():
    alone = network('dino')
    torch.manual_seed(0)
    wanted = alone(*batch(), mode='loss')
    model = distiller(network('dino'), network('dino', 8, 1), DETRDistill(weight=0))
    torch.manual_seed(0)
    found = model.loss(*batch())
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    assert set(found) - set(wanted) <= {'kd.it.loss'}


def test_necks_of_other_widths_get_an_adapter():
    student, teacher = network('deformable'), network('deformable', 8, 1, dims=32)
    model = distiller(student, teacher, DETRDistill(factors=dict(prior=0)))
    found = losses(model)
    assert len(model.objectives['it'].adapters) == 3
    assert float(found['loss_features'].detach()) > 0


@pytest.mark.parametrize(
    ('student', 'teacher', 'options', 'said'),
    [
        ('retina', 'dino', {}, 'the student is RetinaNet with RetinaHead'),
        ('dino', 'retina', {}, 'the teacher is RetinaNet with RetinaHead'),
        ('dino', 'four', {}, "class counts: the student's head has 3 and the teacher's 4"),
        ('deformable', 'wide', {}, "16 and the teacher's 32; set factors={'prior': 0}"),
        ('dino', 'detr', dict(factors=dict(prior=0)), 'strides|levels'),
    ],
)
def test_refused(student, teacher, options, said):
    kinds = dict(
        retina=lambda: build_model(tiny_retinanet(4)),
        four=lambda: network('dino', num_classes=4),
        wide=lambda: network('deformable', dims=32),
    )
    own, judge = (kinds.get(name, lambda n=name: network(n))() for name in (student, teacher))
    with pytest.raises(ValueError, match=said):
        distiller(own, judge, DETRDistill(**options))


def test_an_ensemble_has_no_queries():
    """A mean of several decoders, query by query, would be one of different objects."""
    ensemble = Ensemble(
        {name: Teacher(network('detr', seed=i), 'random') for i, name in enumerate('ab')}
    )
    with pytest.raises(ValueError, match='DETRDistill .* or reads its queries one by one'):
        distiller(network('detr'), ensemble, DETRDistill())


def test_a_decoder_narrower_than_its_neck(monkeypatch):
    from mmkd.levels import Level

    objective = DETRDistill(factors=dict(prior=0))
    neck, hidden = Level((24, 4, 6), 8, 'neck'), Level((2, 6, 16), None, queries.HIDDEN)
    with pytest.raises(ValueError, match='its neck has 24 channels and its decoder 16'):
        objective.setup([neck], [neck, hidden])
    with pytest.raises(ValueError, match='could not be probed'):
        objective.setup(None, None)
