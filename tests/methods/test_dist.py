"""DIST against worked numbers and numpy's correlation."""

import copy

import numpy as np
import pytest
import torch
from segmentation_toys import ToyClassifier, ToySegmentor, make_step, prepare, probe_tensors

from mmkd.methods.dist import DIST, inter_class, intra_class, pearson

S, T, Y = probe_tensors()
ZS = torch.tensor([[1, 2, 3], [0.5, -0.5, 0], [0, 1, -1]], dtype=torch.float64)
ZT = torch.tensor([[2, 1, 4], [1, 0, -1], [-1, 3, 0]], dtype=torch.float64)


def rows(x, tau=1.0):
    flat = x if x.dim() == 2 else x.permute(0, 2, 3, 1).reshape(-1, 3)
    return (flat / tau).softmax(1)


@pytest.mark.parametrize(
    ('s', 't', 'tau', 'inter', 'intra'),
    [
        (S, T, 1, 0.7111590, 0.9689092),
        (ZS, ZT, 1, 0.1007541, 0.0797928),
        (ZS, ZT, 4, 0.274280, 0.264661),
    ],
)
def test_worked_numbers(s, t, tau, inter, intra):
    s, t = rows(s, tau), rows(t, tau)
    assert float(inter_class(s, t)) == pytest.approx(inter, abs=2e-6)
    assert float(intra_class(s, t)) == pytest.approx(intra, abs=2e-6)
    assert float(inter_class(s.float(), t.float())) == pytest.approx(inter, rel=1e-4)
    assert float(intra_class(s.float(), t.float())) == pytest.approx(intra, rel=1e-4)


def test_numpy():
    s, t = (rows(x).numpy() for x in (S, T))
    inter = 1 - np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(s, t, strict=True)])
    intra = 1 - np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(s.T, t.T, strict=True)])
    assert float(inter_class(rows(S), rows(T))) == pytest.approx(inter, rel=1e-5)
    assert float(intra_class(rows(S), rows(T))) == pytest.approx(intra, rel=1e-5)


def test_near_zero_at_equality_and_affine_invariance():
    s, t = rows(S), rows(T)
    assert float(inter_class(s, s)) == pytest.approx(2.2e-7, rel=0.1)
    assert float(intra_class(s, s)) == pytest.approx(1.4e-8, rel=0.1)
    assert float(inter_class(3 * s + 1, t)) == pytest.approx(float(inter_class(s, t)), rel=1e-5)
    assert float(intra_class(3 * s + 1, t)) == pytest.approx(float(intra_class(s, t)), rel=1e-5)
    assert float(inter_class(s.flip(1), t)) != pytest.approx(float(inter_class(s, t)))


def test_gradient():
    z = ZS.clone().requires_grad_()
    both = lambda x: inter_class(rows(x), rows(ZT)) + intra_class(rows(x), rows(ZT))  # noqa: E731
    assert torch.autograd.gradcheck(both, z)


def test_classes_without_variation_take_no_part():
    teacher = rows(ZT).clone()
    teacher[:, 0] = 0.3
    s = rows(ZS).requires_grad_()
    loss = intra_class(s, teacher)
    assert float(loss.detach()) == pytest.approx(float(intra_class(s[:, 1:], teacher[:, 1:])))
    assert (torch.autograd.grad(loss, s)[0][:, 0] == 0).all()
    assert float(intra_class(s, teacher, 0.0)) == pytest.approx((1 + 2 * float(loss)) / 3)
    assert float(intra_class(s, torch.full_like(teacher, 0.3))) == 0


def test_few_rows_and_constant_students():
    for count in (0, 1, 2):
        s = rows(ZS)[:count].requires_grad_()
        assert float(intra_class(s, rows(ZT)[:count]).detach()) == 0
        loss = inter_class(s, rows(ZT)[:count])
        loss.backward()
        assert loss.isfinite()
    constant = torch.zeros(5, 3, requires_grad=True)
    (
        inter_class(rows(constant), rows(T).float()[:5])
        + intra_class(rows(constant), rows(T).float()[:5])
    ).backward()
    assert constant.grad.isfinite().all()


def objective_and_trace(student, teacher, labels=None, **options):
    objective = prepare(DIST(**options), student, teacher)
    return objective, make_step(objective, student, teacher, labels=labels)


def test_objective_on_pixels():
    student, teacher = ToySegmentor(4), ToySegmentor(6)
    objective, trace = objective_and_trace(student, teacher, tau=2.0, factors=dict(inter=3.0))
    assert float(str(objective.weight)) == 1
    s, t = (rows(x, 2.0) for x in objective.tensor_pairs(trace)[0])
    losses = objective(trace)
    torch.testing.assert_close(losses['loss_inter'], 12 * inter_class(s, t))
    torch.testing.assert_close(losses['loss_intra'], 4 * intra_class(s, t))
    plain = prepare(DIST(tau=2.0, tau_square=False, factors=dict(inter=0)), student, teacher)(trace)
    assert list(plain) == ['loss_intra']
    torch.testing.assert_close(plain['loss_intra'], intra_class(s, t))
    sum(losses.values()).backward()
    assert student.backbone.conv.weight.grad.abs().sum() > 0
    assert len(objective.views(trace)) == 1


def test_mask():
    student, teacher = ToySegmentor(4), ToySegmentor(6)
    labels = torch.zeros(2, 32, 48, dtype=torch.long)
    labels[1] = 255
    objective, trace = objective_and_trace(student, teacher, labels, mask_ignore=True)
    s, t = (rows(x[:1]) for x in objective.tensor_pairs(trace)[0])
    torch.testing.assert_close(objective(trace)['loss_intra'], intra_class(s, t))
    torch.testing.assert_close(objective(trace)['loss_inter'], inter_class(s, t))
    _, trace = objective_and_trace(student, teacher, torch.full_like(labels, 255))
    losses = objective(trace)
    sum(losses.values()).backward()
    assert all(float(v.detach()) == 0 for v in losses.values())


def test_auxiliary_heads():
    student, teacher = ToySegmentor(4, auxiliary=True), ToySegmentor(6, auxiliary=True)
    objective, trace = objective_and_trace(student, teacher)
    wanted = teacher.auxiliary_head(teacher.backbone(trace.inputs)).detach()
    found = trace.student['auxiliary_head.conv_seg'][0]
    terms = inter_class(rows(found), rows(wanted)) + intra_class(rows(found), rows(wanted))
    torch.testing.assert_close(objective(trace)['loss_auxiliary'], 0.4 * terms)
    objective, trace = objective_and_trace(student, teacher, auxiliary=0)
    assert set(objective(trace)) == {'loss_inter', 'loss_intra'}
    objective, trace = objective_and_trace(student, ToySegmentor(6))
    assert set(objective(trace)) == {'loss_inter', 'loss_intra'}


def test_classifiers():
    student, teacher = ToyClassifier(), ToyClassifier()
    objective, trace = objective_and_trace(student, teacher)
    assert (objective.tau, float(str(objective.weight))) == (4, 2)
    losses = objective(trace)
    assert float(losses['loss_intra'].detach()) == 0  # two images always correlate
    losses['loss_inter'].backward()
    assert student.head.fc.weight.grad.abs().sum() > 0


def test_zero_at_equality():
    student = ToySegmentor().eval()
    objective, trace = objective_and_trace(student, copy.deepcopy(student))
    assert all(float(v) == pytest.approx(0, abs=1e-4) for v in objective(trace).values())


def test_two_classes_leave_out_inter():
    pair = ToySegmentor(4, 2), ToySegmentor(6, 2)
    with pytest.warns(UserWarning, match='two classes'):
        objective, trace = objective_and_trace(*pair, labels=torch.zeros(2, 32, 48).long())
    assert list(objective(trace)) == ['loss_intra']
    with pytest.raises(ValueError, match='only the intra term has a gradient'):
        DIST(factors=dict(intra=0)).bind(*pair)


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: DIST(tau=-1), 'tau must be a finite number above 0'),
        (
            lambda: DIST(factors=dict(inter=0, intra=0)),
            r'factors of all terms \(inter, intra\) are 0',
        ),
        (lambda: DIST(auxiliary=-1), 'auxiliary must be a finite number of at least 0'),
        (lambda: DIST().bind(ToySegmentor(), ToyClassifier()), 'softmax class scores of one kind'),
        (lambda: DIST().bind(ToySegmentor(), ToySegmentor(num_classes=5)), '3 .*teacher 5'),
        (lambda: DIST().bind(ToyClassifier(), ToyClassifier(5)), "has 3 and the teacher's 5"),
        (lambda: DIST().bind(*(ToyClassifier(1),) * 2), 'softmax over one class'),
        (
            lambda: DIST().bind(*(ToySegmentor(num_classes=2, out_channels=1),) * 2),
            'softmax over one class',
        ),
    ],
)
def test_bad_input(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_flat_is_an_option():
    """A student that hardly varies: no gradient above the limit, the code's without one."""
    student = (torch.full((4, 3), 1 / 3) + 1e-6 * torch.rand(4, 3)).requires_grad_()
    teacher = torch.rand(4, 3).softmax(1)
    pearson(student, teacher, 1, flat=1e-5).sum().backward()
    assert not student.grad.any()
    pearson(student, teacher, 1, flat=0.0).sum().backward()
    assert student.grad.any()
    with pytest.raises(ValueError, match='DIST: flat must be'):
        DIST(flat=-1.0)
