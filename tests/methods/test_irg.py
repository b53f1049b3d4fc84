"""IRG: the form of Knowledge-Distillation-Zoo and the transformation of edges."""

import pytest
import torch
from torch.nn import functional as F

from mmkd.methods.irg import IRG, edges, same_shape
from mmkd.testing import make_trace, ready


def maps(seed, widths):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(widths[0], 8), (widths[1], 4), (widths[1], 2)]
    return [torch.rand(4, c, side, side, generator=generator) for c, side in shapes]


def step(**options):
    student, teacher = maps(0, (2, 4)), maps(1, (3, 6))
    trace = make_trace(dict(zip('abc', student)), dict(zip('abc', teacher)))  # noqa: B905
    return ready(IRG(['a', 'b', 'c'], vertex=0, **options), trace)(trace), student, teacher


def moved(first, second):
    """Between two maps: the first averaged to the second's size, its channels in pairs."""
    first = F.avg_pool2d(first, first.shape[2] // second.shape[2])
    second = (second[:, 0::2] + second[:, 1::2]) / 2
    square = (first - second).flatten(1).square().sum(1)
    return square / square.max()


def test_zoo_form():
    found, student, teacher = step(form='zoo', edge=2.0, transform=3.0)
    flat = [
        (edges(s.flatten(1)) - edges(t.flatten(1))).square().mean()
        for s, t in zip(student, teacher, strict=True)
    ]
    assert float(found['loss_edge']) == pytest.approx(2 * float(sum(flat)) / 3, rel=1e-5)
    move = (moved(*student[:2]) - moved(*teacher[:2])).square().mean()
    assert float(found['loss_transform']) == pytest.approx(3 * float(move), rel=1e-5)


def test_how_edges_change_between_layers():
    found, student, teacher = step(edge=0, transform=0, edge_transform=2.0)
    graphs = [[edges(x.mean((2, 3))) for x in side] for side in (student, teacher)]
    change = [[(a - b).square() for a, b in zip(g, g[1:], strict=False)] for g in graphs]
    errors = [(s - t).square().mean() for s, t in zip(*change, strict=True)]
    assert set(found) == {'loss_edge_transform'}
    assert float(found['loss_edge_transform']) == pytest.approx(float(sum(errors)), rel=1e-5)


def test_vectors_have_no_size():
    a, b = same_shape(torch.rand(2, 6), torch.arange(6.0).view(2, 3))
    assert a.shape == b.shape == (2, 3)


def test_bad_form():
    with pytest.raises(ValueError, match='IRG: form must be one of'):
        IRG(form='caffe')
