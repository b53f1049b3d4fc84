"""PEFD: worked numbers, zero features, maps."""

import pytest
import torch
from torch import nn

from mmkd.methods.fitnet import FitNet
from mmkd.methods.pefd import PEFD, cosine_distance
from mmkd.plan import Plan
from mmkd.teacher import Teacher, build_model
from mmkd.testing import make_trace, ready, tiny_classifier, tiny_retinanet

WEIGHTS = [[1.0, 0], [0, 1]], [[0.0, 1], [1, 0]], [[1.0, -1], [0, 1]]


def distilled(objective, student, teacher, weights=WEIGHTS):
    """What it returns for maps or vectors at one tap, with these projectors without biases."""
    objective.bind(nn.Module(), nn.Module())
    trace = make_trace(dict(a=student), dict(a=teacher))
    ready(objective, trace)
    for projector, weight in zip(objective.adapters['0'].projectors, weights, strict=True):
        with torch.no_grad():
            layer = getattr(projector, 'conv', projector)
            layer.weight.copy_(torch.tensor(weight).reshape(layer.weight.shape))
            layer.bias.zero_()
    return objective(trace)


def test_vectors():  # PE-1
    found = distilled(PEFD('a'), torch.tensor([[1.0, 2]]), torch.tensor([[1.0, 1]]))
    assert float(found['loss']) == pytest.approx(0.0298575, abs=1e-7)
    one, _ = cosine_distance(torch.tensor([[1.0, 2]]), torch.tensor([[1.0, 1]]))
    assert float(one) == pytest.approx(0.0513167, abs=1e-7)


def test_cells_of_a_map():  # PE-2
    student, teacher = (
        torch.tensor(x).T.reshape(1, 2, 1, 2) for x in ([[1.0, 2], [0, 1]], [[1.0, 1], [0, 2]])
    )
    found = distilled(PEFD('a'), student, teacher)
    assert float(found['loss']) == pytest.approx(0.0677152, abs=1e-7)
    cell = distilled(PEFD('a'), student[..., 1:], teacher[..., 1:])
    assert float(cell['loss']) == pytest.approx(0.1055728, abs=1e-7)


def test_wider_features():  # G6
    weights = [[1.0, 0], [0, 1], [1, 1]], [[0.0, 1], [1, 0], [-1, 0]], [[1.0, -1], [0, 0.5], [0, 1]]
    pair = torch.tensor([[1.0, 2]]), torch.tensor([[1.0, 1, 2]])
    found = distilled(PEFD('a'), *pair, weights)
    assert float(found['loss']) == pytest.approx(0.018505, abs=1e-6)
    assert PEFD().weight.value * float(found['loss']) == pytest.approx(0.462614, abs=1e-5)
    one, _ = cosine_distance(torch.tensor([[1.0, 2, 3]]), pair[1])
    assert float(one) == pytest.approx(0.018019, abs=1e-6)


def test_pairs_count_equally():
    objective = PEFD(['a', 'b'], adapt='ensemble2_signed')
    objective.bind(nn.Module(), nn.Module())
    maps = [dict(a=torch.randn(2, 3, 4, 4), b=torch.randn(2, 3, 2, 2)) for _ in range(2)]
    trace = make_trace(*maps)
    found = ready(objective, trace)(trace)['loss']
    each = [
        cosine_distance(objective.adapters[str(k)](maps[0][tap]), maps[1][tap])[0]
        for k, tap in enumerate('ab')
    ]
    torch.testing.assert_close(found, sum(each) / 2)


def test_features_without_a_direction():
    """A dead projector has no gradient that is not finite; rows of a silent teacher are left out."""
    student = torch.tensor([[-1.0, -2], [1, 2]], requires_grad=True)
    found = distilled(
        PEFD('a'), student, torch.tensor([[1.0, 1], [0, 0]]), [[[1.0, 0], [0, 1]]] * 3
    )
    assert float(found['loss'].detach()) == 1 and float(found['without_direction']) == 1
    found['loss'].backward()
    assert student.grad.eq(0).all()
    silent, count = cosine_distance(torch.ones(2, 3), torch.zeros(2, 3))
    assert float(silent) == 0 and int(count) == 2


@pytest.mark.parametrize('kind', [PEFD, FitNet])
def test_on_any_model(kind):
    """A named tap at an FPN; the plan shows the ensemble."""
    with torch.no_grad():
        models = [build_model(tiny_retinanet(width)) for width in (4, 8)]
        objective = kind('neck', adapt='ensemble3_signed')
        Plan(models[0], {'teacher': Teacher(models[1], 'random')}, {'it': objective}).prepare()
    assert 'mean of 3 x (1x1 conv 8 -> 16)' in objective.describe()[0]


def test_bad_input():
    with pytest.raises(ValueError, match='taps of its own for classifiers only'):
        PEFD().bind(*[build_model(tiny_retinanet(4))] * 2)
    model = build_model(tiny_classifier())
    for adapt, said in (('ensemble1', 'two or more'), ('ensemble', 'adapt must be one of')):
        objective = PEFD(adapt=adapt)
        with torch.no_grad(), pytest.raises(ValueError, match=said):
            Plan(model, {'teacher': Teacher(model, 'random')}, {'it': objective}).prepare()
