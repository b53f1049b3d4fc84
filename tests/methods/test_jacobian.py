"""Jacobian: rows and projections of the Jacobian of linear networks."""

import pytest
import torch
from pixel_toys import (
    LABELS,
    linear_step,
)
from torch.nn import functional as F

from mmkd.methods.jacobian import Jacobian, row_distance


@pytest.mark.parametrize('outputs', ['label', 'teacher'])
def test_row_of_one_class(outputs):
    step = linear_step()
    objective = Jacobian(outputs=outputs)
    objective.bind(step.student.model, step.teacher.model)
    rows = LABELS if outputs == 'label' else step.teacher.raw('head.fc')[0].argmax(1)
    s, t = (F.normalize(m.head.fc.weight[rows]) for m in (step.student.model, step.teacher.model))
    assert float(objective(step)['loss']) == pytest.approx(float((s - t).square().sum(1).mean()))


def test_projections_estimate_the_whole_jacobian():
    step = linear_step()
    weights = [side.model.head.fc.weight for side in (step.student, step.teacher)]
    wanted = float((weights[0] - weights[1]).square().sum())
    found = []
    for seed in range(300):
        objective = Jacobian(outputs='projection', normalize=False, seed=seed)
        objective.bind(step.student.model, step.teacher.model)
        found.append(float(objective(step)['loss']))
    assert sum(found) / len(found) == pytest.approx(wanted, rel=0.15)
    assert len(set(found)) == len(found)


def test_worked_rows():
    s, t = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]])
    assert float(row_distance(s, t, normalize=False)) == 1
    assert float(row_distance(s, t)) == pytest.approx(0.585786, abs=1e-6)
    assert float(row_distance(5 * s, t)) == pytest.approx(0.585786, abs=1e-6)
    assert float(row_distance(torch.zeros(1, 2), torch.zeros(1, 2))) == 0


def test_means_of_public_codes():
    s, t = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]])
    assert float(row_distance(s, t, variant='code')) == pytest.approx(0.585786 / 2, abs=1e-6)
    assert float(row_distance(s, t, False, 'length')) == 1
    assert float(row_distance(s, t, variant='length')) == pytest.approx(0.585786**0.5, abs=1e-6)
    same = s.clone().requires_grad_()
    row_distance(same, s, variant='length').backward()
    assert same.grad.isfinite().all()
    assert Jacobian().weight.value == 1 and Jacobian(variant='code').weight.value == 20


def test_options_out_of_range():
    with pytest.raises(ValueError, match='variant must be one of'):
        Jacobian(variant='zoo')
    with pytest.raises(ValueError, match='outputs must be one of'):
        Jacobian(outputs='all')
