"""IRG: worked numbers, layers, the form of Knowledge-Distillation-Zoo, and the transformation of edges."""

import pytest
import torch
from row_toys import A, B, on_two_layers, random_rows, two_layers
from torch import nn
from torch.nn import functional as F

from mmkd.functional.relations import distances
from mmkd.methods.irg import IRG, edges, relation_error, same_shape, transform
from mmkd.plan.probe import levels_at, probe
from mmkd.teacher import build_model
from mmkd.testing import make_trace, ready, tiny_classifier


def maps(seed, widths):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(widths[0], 8), (widths[1], 4), (widths[1], 2)]
    return [torch.rand(4, c, side, side, generator=generator) for c, side in shapes]


def step(factors, **options):
    student, teacher = maps(0, (2, 4)), maps(1, (3, 6))
    trace = make_trace(dict(zip('abc', student)), dict(zip('abc', teacher)))  # noqa: B905
    objective = IRG(['a', 'b', 'c'], factors=dict(vertex=0, **factors), **options)
    return ready(objective, trace)(trace), student, teacher


def moved(first, second):
    """Between two maps: the first averaged to the second's size, its channels in pairs."""
    first = F.avg_pool2d(first, first.shape[2] // second.shape[2])
    second = (second[:, 0::2] + second[:, 1::2]) / 2
    square = (first - second).flatten(1).square().sum(1)
    return square / square.max()


def test_zoo_variant():
    found, student, teacher = step(dict(edge=2.0, transform=3.0), variant='zoo')
    flat = [
        (edges(s.flatten(1)) - edges(t.flatten(1))).square().mean()
        for s, t in zip(student, teacher, strict=True)
    ]
    assert float(found['loss_edge']) == pytest.approx(2 * float(sum(flat)) / 3, rel=1e-5)
    move = (moved(*student[:2]) - moved(*teacher[:2])).square().mean()
    assert float(found['loss_transform']) == pytest.approx(3 * float(move), rel=1e-5)


def test_how_edges_change_between_layers():
    found, student, teacher = step(dict(edge=0, transform=0, edge_transform=2.0))
    graphs = [[edges(x.mean((2, 3))) for x in side] for side in (student, teacher)]
    change = [[(a - b).square() for a, b in zip(g, g[1:], strict=False)] for g in graphs]
    errors = [(s - t).square().mean() for s, t in zip(*change, strict=True)]
    assert set(found) == {'loss_edge_transform'}
    assert float(found['loss_edge_transform']) == pytest.approx(float(sum(errors)), rel=1e-5)


def test_vectors_have_no_size():
    a, b = same_shape(torch.rand(2, 6), torch.arange(6.0).view(2, 3))
    assert a.shape == b.shape == (2, 3)


def test_bad_variant():
    with pytest.raises(ValueError, match='IRG: variant must be one of'):
        IRG(variant='caffe')


@pytest.mark.parametrize(
    ('found', 'wanted'),
    [
        (relation_error(edges(A), edges(B)), 0.231111),
        (relation_error(edges(A), edges(B), 'sum'), 0.3466667),
    ],
)
def test_worked_numbers(found, wanted):
    assert float(found) == pytest.approx(wanted, abs=1e-6)


def edge_loss(s, t):
    return relation_error(edges(s), edges(t))


def test_terms_of_two_layers():
    first, second = two_layers()
    found = on_two_layers(IRG(['a', 'b'], factors=dict(vertex=0, edge=2, transform=3)))
    a, b = edge_loss(*first), edge_loss(*second)
    assert found['loss_edge'] == pytest.approx(float(a + b), rel=1e-5)
    moves = [transform(*pair) for pair in zip(first, second, strict=True)]
    assert found['loss_transform'] == pytest.approx(3 * float(relation_error(*moves)), rel=1e-4)
    found = on_two_layers(
        IRG(['a', 'b'], factors=dict(vertex=0, edge=2, transform=0), edge_layers=1)
    )
    assert found == {'loss_edge': pytest.approx(2 * float(b), rel=1e-5)}
    found = on_two_layers(
        IRG(['a', 'b'], factors=dict(vertex=0, edge=1, transform=0), one_to_many=True)
    )
    crossed = relation_error(edges(first[0]), edges(second[1]))
    assert found['loss_edge'] == pytest.approx(float(crossed + b) / 2, rel=1e-5)
    summed = on_two_layers(
        IRG(['a', 'b'], factors=dict(vertex=0, edge=1, transform=1), reduction='sum', edge_layers=1)
    )
    assert summed['loss_edge'] == pytest.approx(
        float((edges(second[0]) - edges(second[1])).square().sum() / 10), rel=1e-5
    )
    assert summed['loss_transform'] == pytest.approx(
        float((moves[0] - moves[1]).square().sum() / 2), rel=1e-4
    )


def test_narrows_the_wider_of_two_layers():
    wide = torch.tensor([[1.0, 3, 5, 7], [2, 2, 4, 4], [0, 0, 1, 1]])
    narrow = torch.tensor([[2.0, 6], [0, 0], [0, 1]])
    torch.testing.assert_close(transform(narrow, wide), torch.tensor([0, 1.0, 0]))
    assert float(edges(wide).max()) == 1 and not edges(wide).diagonal().any()


def test_takes_the_largest_distance_for_a_constant():
    s, t = random_rows()
    s.requires_grad_()
    largest = float(distances(s).detach().max()) ** 2
    wanted = (distances(s).square() / largest - edges(t)).square().mean()
    found = edge_loss(s, t)
    torch.testing.assert_close(torch.autograd.grad(found, s)[0], torch.autograd.grad(wanted, s)[0])


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: IRG(factors=dict(vertex=0, edge=0, transform=0)), 'factors of all terms .* are 0'),
        (lambda: IRG(reduction='max'), 'reduction must be one of'),
        (lambda: IRG(edge_layers=0), 'edge_layers must be'),
        (
            lambda: IRG('x').bind(nn.Module(), nn.Module()),
            'vertex term compares the logits of classifiers',
        ),
    ],
)
def test_options_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_default_teacher_taps():
    objective = IRG()
    objective.bind(*(build_model(tiny_classifier(width)) for width in (4, 8)))
    stages = ['backbone.layer1', 'backbone.layer2']
    assert [str(tap) for tap in objective.teacher_taps] == [*stages, 'pool', 'head.fc']


def test_needs_equal_classes():
    models = [build_model(tiny_classifier(4, num_classes=k)) for k in (3, 5)]
    objective = IRG()
    objective.bind(*models)
    sides = [
        levels_at(probe(model, taps, 32), taps)
        for model, taps in zip(
            models, (objective.student_taps, objective.teacher_taps), strict=True
        )
    ]
    with pytest.raises(ValueError, match="3 logits and the teacher 5; factors={'vertex': 0}"):
        objective.setup(*sides)
