"""RKD: distances and angles against loops, and parts that need less memory."""

import itertools

import pytest
import torch
from row_toys import random_rows, value

from mmkd.analysis.benchmark import peak_bytes
from mmkd.functional.relations import unit
from mmkd.methods import rkd
from mmkd.methods.rkd import RKD, angle_error, angles, distance_error

RS = torch.tensor([[0, 0], [3, 4], [6, 8]], dtype=torch.float64)
RT = torch.tensor([[0, 0], [1, 0], [0, 1]], dtype=torch.float64)


@pytest.mark.parametrize(
    ('found', 'wanted'),
    [
        (distance_error(RS, RT), 0.0716991),
        (angle_error(RS, RT), 0.1296296),
    ],
)
def test_worked_numbers(found, wanted):
    assert float(found) == pytest.approx(wanted, abs=1e-6)


def test_transcription():
    s, t = random_rows()
    b = len(s)

    def huber(x):
        return x * x / 2 if abs(x) <= 1 else abs(x) - 0.5

    def angle(x, i, j, k):
        if j in (i, k):
            return 0.0
        u, v = x[i] - x[j], x[k] - x[j]
        return float(u @ v / (u.norm() * v.norm()))

    def relative(x):
        pairs = [float((x[i] - x[j]).norm()) for i in range(b) for j in range(b) if i != j]
        mean = sum(pairs) / len(pairs)
        return [float((x[i] - x[j]).norm()) / mean for i in range(b) for j in range(b)]

    wanted = sum(huber(p - q) for p, q in zip(relative(s), relative(t), strict=True)) / b**2
    assert float(distance_error(s, t)) == pytest.approx(wanted)
    triples = list(itertools.product(range(b), repeat=3))
    wanted = sum(huber(angle(s, *ijk) - angle(t, *ijk)) for ijk in triples) / b**3
    assert float(angle_error(s, t)) == pytest.approx(wanted)
    line = torch.tensor([[0.0, 0], [1, 1], [3, 3]])
    assert angles(line, torch.tensor([1]))[0, 0, 2] == pytest.approx(-1)
    assert angles(line, torch.tensor([0]))[0, 1, 2] == pytest.approx(1)


def test_angles_in_parts(monkeypatch):
    s, t = random_rows(b=7)
    leaf = s.clone().requires_grad_()
    whole = torch.autograd.grad(angle_error(leaf, t), leaf)[0]
    monkeypatch.setattr(rkd, '_AT_ONCE', 300)
    assert float(angle_error(s, t)) == pytest.approx(float(angle_error(leaf, t).detach()))
    torch.testing.assert_close(torch.autograd.grad(angle_error(leaf, t), leaf)[0], whole)
    s, t = random_rows(b=48, widths=(256, 256), dtype=torch.float32)
    s.requires_grad_()
    parts = peak_bytes(lambda: angle_error(s, t).backward())
    monkeypatch.undo()
    assert parts < peak_bytes(lambda: angle_error(s, t).backward()) / 4


def test_factors_and_normalisation():
    s, t = random_rows()
    distance, angle = float(distance_error(s, t)), float(angle_error(s, t))
    assert value(RKD('x')) == pytest.approx(25 * distance + 50 * angle, rel=1e-5)
    assert value(RKD('x', factors=dict(distance=2, angle=0))) == pytest.approx(
        2 * distance, rel=1e-5
    )
    assert value(RKD('x', factors=dict(distance=0, angle=3))) == pytest.approx(3 * angle, rel=1e-5)
    for rows, options in (((s, unit(t)), 'teacher'), ((unit(s), unit(t)), 'both')):
        wanted = float(distance_error(*rows))
        found = value(RKD('x', factors=dict(distance=1, angle=0), normalize=options))
        assert found == pytest.approx(wanted, rel=1e-5) and found != pytest.approx(distance)


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: RKD(factors=dict(distance=0, angle=0)), 'factors of all terms .* are 0'),
        (lambda: RKD(factors=dict(angle=-1)), 'factor angle must be'),
        (lambda: RKD(normalize='student'), 'normalize must be one of'),
    ],
)
def test_options_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()
