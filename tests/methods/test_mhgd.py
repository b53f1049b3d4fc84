"""MHGD, and singular vectors: their signs, their partners and their gradients."""

import pytest
import torch
from torch import nn

from mmkd.methods.mhgd import MHGD, AttentionHeads, Estimator, graph_divergence
from mmkd.teacher import build_model
from mmkd.testing import make_trace, ready, tiny_classifier


def maps(seed=0, shapes=((3, 4, 4), (4, 2, 2)), n=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, *shape, generator=generator, dtype=dtype) for shape in shapes]


def test_worked_number():
    student = torch.tensor([[[0.5, 0], [0, 0.2]]], dtype=torch.float64)
    teacher = torch.tensor([[[0.1, 0.3], [0, 0.4]]], dtype=torch.float64)
    assert float(graph_divergence(student, teacher)) == pytest.approx(0.056433, abs=1e-6)
    assert float(graph_divergence(teacher, student)) == pytest.approx(0.057163, abs=1e-6)
    both = torch.cat((student, student)), torch.cat((teacher, teacher))
    assert float(graph_divergence(*both)) == pytest.approx(2 * 0.056433, abs=2e-6)
    assert float(graph_divergence(student, student)) == 0
    leaf = student.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: graph_divergence(x, teacher), leaf)


def test_attention_relates_every_image_to_every_other():
    attention = AttentionHeads(3, 5, heads=2).eval()
    first, second = torch.randn(4, 3), torch.randn(4, 5)
    scores = attention(second, first)
    assert scores.shape == (2, 4, 4)
    key, query = attention.key(second)[:, :4], attention.query(first)[:, :4]
    torch.testing.assert_close(scores[0, 1, 2], key[1] @ query[2])
    estimator = Estimator(3, 5, heads=2)
    found = estimator.eval()(scores, first)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4))
    weights = scores.softmax(-1)
    mixed = torch.stack([weights[h] @ estimator.value(first) for h in range(2)], 2).flatten(1)
    torch.testing.assert_close(found, nn.functional.normalize(estimator.out(mixed)))
    assert not torch.equal(estimator.train()(scores, first), found), 'heads are left out'


def sides(widths=(3, 4), seed=0):
    """Two layers of each side, a width each for the student; the teacher's are 3 and 4."""
    student = maps(seed, [(c, 4, 4) for c in widths], dtype=torch.float32)
    teacher = maps(seed + 1, [(c, 4, 4) for c in (3, 4)], dtype=torch.float32)
    return [dict(zip('ab', x, strict=True)) for x in (student, teacher)]


def prepared(student, teacher, **options):
    objective = MHGD(['a', 'b'], heads=2, **options)
    objective.bind(nn.Module(), nn.Module())
    trace = make_trace(student, teacher)
    return ready(objective, trace), trace


def test_the_first_phase_trains_attention_on_the_teacher_alone():
    torch.manual_seed(0)
    objective, trace = prepared(*sides(), phase='attention')
    assert objective.student_taps == ()
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(40):
        (loss,) = objective(trace).values()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in objective.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert int(objective.steps) == 40
    objective.eval()(trace)
    assert int(objective.steps) == 40
    single = make_trace(
        {'a': trace.teacher['a'][0][:1]}, {k: trace.teacher[k][0][:1] for k in 'ab'}
    )
    assert float(objective.train()(single)['loss_attention'].detach()) == 0


def test_the_second_phase_starts_from_the_first():
    first, _ = prepared(*sides(), phase='attention')
    second, trace = prepared(*sides(widths=(2, 4)))
    with pytest.raises(ValueError, match='never trained.*chains.md'):
        second.check_dataset(None)
    first.check_dataset(None)
    first.steps += 5
    second.load_state_dict(first.state_dict(), strict=False)
    second.check_dataset(None)
    for own, other in zip(second.attention.parameters(), first.attention.parameters(), strict=True):
        assert torch.equal(own, other) and not own.requires_grad
    assert [n for n, p in second.named_parameters() if p.requires_grad] == ['adapters.0.weight']
    assert not any(m.training for m in second.train().attention.modules())
    second(trace)['loss'].backward()
    assert second.adapters[0].weight.grad.any()


def test_equal_maps_and_heads():
    student, _ = sides()
    objective, trace = prepared(student, student)
    assert float(objective(trace)['loss']) == pytest.approx(0, abs=1e-6)
    objective, trace = prepared(*sides())
    value = float(objective(trace)['loss'])
    assert value > 0
    turned, _ = sides()
    turned = {k: -2 * v for k, v in turned.items()}
    assert float(objective(make_trace(turned, sides()[1]))['loss']) == pytest.approx(
        value, rel=1e-3
    )


def test_default_taps():
    models = [build_model(tiny_classifier(4)) for _ in range(2)]
    for phase, count in (('student', 3), ('attention', 0)):
        objective = MHGD(phase=phase)
        objective.bind(*models)
        assert len(objective.student_taps) == count and len(objective.teacher_taps) == 3


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: MHGD(phase='both'), 'phase must be one of'),
        (lambda: MHGD(heads=0), 'heads must be'),
        (lambda: prepared(*sides(widths=(2, 4)), adapt=None), 'but adapt=None'),
        (lambda: prepared({'a': maps()[0]}, sides()[1]), 'saw nothing'),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
