"""PKD against the sheet's numbers and numpy's correlation."""

import numpy as np
import pytest
import torch
from pyramid_toys import levels, prepare, random_maps, toy, trace_of

from mmkd.levels import Level
from mmkd.methods.pkd import PKD, pearson_distance, standardise


def row(*values):
    return torch.tensor(values, dtype=torch.float64).view(1, 1, 1, -1)


A, B = row(1, 2, 3, 4), row(1, 2, 4, 3)


def test_worked_number():  # PKD-1
    assert float(pearson_distance(A, B)) == pytest.approx(0.15, abs=2e-6)
    assert float(pearson_distance(A.float(), B.float())) == pytest.approx(0.15, rel=1e-4)


def test_affine_invariance():  # PKD-2
    maps = [torch.randn(2, 3, 4, 5, dtype=torch.float64) for _ in range(2)]
    scale = torch.tensor([0.5, 2, 30.0], dtype=torch.float64).view(1, 3, 1, 1)
    before = float(pearson_distance(*maps))
    assert float(pearson_distance(maps[0] * scale + 7, maps[1])) == pytest.approx(before, rel=1e-5)
    assert float(pearson_distance(-maps[0], maps[1])) != pytest.approx(before)
    assert float(pearson_distance(-A, A)) == pytest.approx(1.5, abs=1e-5)


def test_zero_at_equality():  # PKD-3
    s = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = pearson_distance(s, s.detach())
    loss.backward()
    assert float(loss.detach()) == 0 and s.grad.abs().max() == 0


def test_numpy():
    s, t = (torch.randn(2, 3, 4, 5, dtype=torch.float64) for _ in range(2))
    n, distances = 2 * 4 * 5, []
    for c in range(3):
        r = np.corrcoef(s[:, c].flatten().numpy(), t[:, c].flatten().numpy())[0, 1]
        distances.append((n - 1) / n * (1 - r))
    assert float(pearson_distance(s, t)) == pytest.approx(np.mean(distances), rel=1e-5)


def test_gradient():
    s, t = (torch.randn(1, 3, 4, 4, dtype=torch.float64) for _ in range(2))
    assert torch.autograd.gradcheck(lambda x: pearson_distance(x, t), s.requires_grad_())


def test_constant_channel():
    def gradient(floor):
        s = torch.full((1, 1, 1, 4), 2.0, requires_grad=True)
        loss = pearson_distance(s, A.float(), floor)
        loss.backward()
        assert float(loss.detach()) == pytest.approx(3 / 8, rel=1e-4)
        return float(s.grad.abs().max())

    assert gradient(0.0) == pytest.approx(2.9e5, rel=0.02)
    assert gradient(1e-3) == pytest.approx(2.9e2, rel=0.02)
    assert float(pearson_distance(row(2, 2, 2, 2), row(5, 5, 5, 5))) == 0
    # channels that vary are left alone by the floor
    assert torch.equal(standardise(A, 1e-3), standardise(A))


def test_single_value():
    s = torch.randn(1, 3, 1, 1, requires_grad=True)
    loss = pearson_distance(s, torch.randn(1, 3, 1, 1))
    loss.backward()
    assert float(loss.detach()) == 0 and (s.grad == 0).all()


def test_sum_over_levels():
    objective = prepare(PKD(), [3, 3, 3, 3])
    s, t = random_maps(2, [3] * 5, grad=True), random_maps(2, [3] * 5, seed=1)
    loss = objective(trace_of(objective, s, t))['loss']
    wanted = sum(pearson_distance(a, b) for a, b in zip(s[:4], t[:4], strict=True))
    assert torch.equal(loss, wanted)
    loss.backward()
    assert all(x.grad.abs().max() > 0 for x in s[:4]) and s[4].grad is None
    views = objective.views(trace_of(objective, s, t))
    assert [tuple(v.maps.shape) for v in views] == [(2, 64 // k, 64 // k) for k in (4, 8, 16, 32)]


def test_std_floor_reaches_the_loss():
    objective = prepare(PKD(std_floor=1e-3), [1])
    s = [torch.full((1, 1, 2, 2), 2.0, requires_grad=True)]
    objective(trace_of(objective, s, [A.float().view(1, 1, 2, 2)]))['loss'].backward()
    assert s[0].grad.abs().max() < 1e3


@pytest.mark.parametrize(
    ('student', 'teacher', 'options', 'weight'),
    [
        ('two_stage', 'two_stage', {}, 6),
        ('dense', 'two_stage', {}, 6),
        ('dense', 'dense', {}, 10),
        ('dense', 'dense', {'weight': 2}, 2),
        ('dense', 'dense', {'weight': {'stop': 0.5}}, 10),
    ],
)
def test_default_weight(student, teacher, options, weight):
    objective = PKD(**options)
    objective.bind(toy(student), toy(teacher))
    assert objective.weight.value == weight
    assert [str(tap) for tap in objective.student_taps] == ['neck[0:4]']


def test_default_taps():
    objective = PKD()
    objective.bind(toy('dense', neck=False), toy('dense'))
    assert str(objective.teacher_taps[0]) == 'backbone[0:4]'
    objective = PKD(student='neck[1:5]', teacher='neck[0:4]')
    objective.bind(toy('two_stage'), toy('dense'))
    assert str(objective.teacher_taps[0]) == 'neck[0:4]'


def test_widths():
    objective = prepare(PKD(), [3, 3], [3, 5])
    assert list(objective.adapters) == ['1']
    with pytest.raises(ValueError, match="adapt='auto'"):
        prepare(PKD(adapt=None), [3], [5])


def test_bad_input():
    for floor in (-1.0, float('nan')):
        with pytest.raises(ValueError, match='std_floor must be'):
            PKD(std_floor=floor)
    with pytest.raises(ValueError, match='the teacher Module .segmentor'):
        PKD().bind(toy(), toy('segmentor'))
    objective = PKD()
    objective.bind(toy(), toy())
    with pytest.raises(ValueError, match="compares feature maps, but 'head' gives 7"):
        objective.setup([Level((7,), None, 'head')], levels([7]))
