"""GKD: the graph, masks by class, the Huber error, and labels in the order of the rows."""

import pytest
import torch
from row_toys import A, B, on_two_layers, random_rows, two_layers, value

from mmkd.methods.gkd import GKD, adjacency, graph_error, nearest
from mmkd.testing import boxes, class_labels, make_trace, ready

LABELS = torch.tensor([0, 1, 0, 1, 1])


def rows(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(5, d, generator=generator) for d in (3, 4)]


@pytest.mark.parametrize('classes', ['same', 'other'])
def test_edges_of_classes(classes):
    student, teacher = rows()
    found = 0.0
    for i in range(5):
        for j in range(5):
            if (LABELS[i] == LABELS[j]) == (classes == 'same'):
                found += float(adjacency(student)[i, j] - adjacency(teacher)[i, j]) ** 2
    trace = make_trace({'x': student}, {'x': teacher}, samples=class_labels(LABELS))
    value = ready(GKD('x', classes=classes), trace)(trace)['loss']
    assert float(value) == pytest.approx(found, rel=1e-5)
    both = [
        graph_error(student, teacher, edges=(LABELS[:, None] == LABELS).float() == same)
        for same in (0, 1)
    ]
    assert float(sum(both)) == pytest.approx(float(graph_error(student, teacher)), rel=1e-5)


def test_huber_is_half_the_square_below_one():
    student, teacher = rows()
    square = graph_error(student, teacher)
    assert float(graph_error(student, teacher, error='huber')) == pytest.approx(float(square) / 2)


def test_labels_are_those_of_the_rows():
    """Ground-truth boxes, two images, one of them without objects of its own order."""
    samples = boxes([[0, 0, 32, 32], [8, 8, 60, 60]], [[4, 4, 30, 50]])
    for sample, labels in zip(samples, ([2, 0], [1]), strict=True):
        sample.gt_instances.labels = torch.tensor(labels)
    maps = [torch.rand(2, c, 8, 8) for c in (3, 4)]
    trace = make_trace({'neck': maps[0]}, {'neck': maps[1]}, samples=samples)
    objective = GKD('neck', instances='boxes', classes='same')
    objective.instances.strides = ([[8]], [[8]])
    assert objective.instances.labels(trace, objective).tolist() == [2, 0, 1]
    assert float(objective(trace)['loss']) == 0  # no two objects of one class


def test_bad_options():
    with pytest.raises(ValueError, match='GKD: classes must be one of'):
        GKD(classes='equal')
    with pytest.raises(ValueError, match='GKD: error must be one of'):
        GKD(error='l1')


@pytest.mark.parametrize(
    ('found', 'wanted'),
    [
        (graph_error(A, B), 2.0),
        (graph_error(A, B, 2), 1.5),
    ],
)
def test_worked_numbers(found, wanted):
    assert float(found) == pytest.approx(wanted, abs=1e-6)


def test_graph():
    graph = adjacency(random_rows(b=8)[0])
    values = torch.linalg.eigvalsh(graph)
    assert float(values[-1]) == pytest.approx(1) and float(values[0]) >= -1
    assert torch.allclose(graph, graph.T) and not graph.diagonal().any()
    mask = nearest(torch.tensor([[0.0, 3, 1], [3, 0, 2], [1, 2, 0]]), 1)
    assert mask.tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    s, t = random_rows(b=6)
    s_, t_ = adjacency(s), adjacency(t)
    keep = nearest(t_, 2)
    wanted = ((s_ * keep) @ (s_ * keep) - (t_ * keep) @ (t_ * keep)).square().sum()
    assert float(graph_error(s, t, 2, 2)) == pytest.approx(float(wanted))
    assert float(graph_error(s, t, neighbors=6)) == pytest.approx(float(graph_error(s, t)))
    below = torch.tensor([[1.0, -1], [-1, 1], [0, 1]], requires_grad=True)
    graph_error(below, below.detach().abs()).backward()
    assert below.grad.isfinite().all(), 'sums of rows that are no graph'


def test_powers_and_neighbours():
    s, t = random_rows(b=6)
    assert value(GKD('x', power=2, neighbors=2), s, t) == pytest.approx(
        float(graph_error(s, t, 2, 2)), rel=1e-4
    )


def test_layers_are_averaged():
    first, second = two_layers()
    a, b = graph_error(*first), graph_error(*second)
    assert on_two_layers(GKD(['a', 'b']))['loss'] == pytest.approx(float(a + b) / 2, rel=1e-5)


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: GKD(power=0), 'power must be a whole number'),
        (lambda: GKD(neighbors=0), 'neighbors must be a whole number'),
    ],
)
def test_options_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()
