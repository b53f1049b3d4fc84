"""GKD: masks by class, the Huber error, and labels in the order of the rows."""

import pytest
import torch

from mmkd.methods.gkd import GKD, adjacency, graph_error
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
