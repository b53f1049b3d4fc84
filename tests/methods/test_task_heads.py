"""TaskHeads: numbers of the sheet, a head for each teacher, and teachers without class scores."""

import pytest
import torch

from mmkd.distiller import Distiller
from mmkd.methods.task_heads import TaskHeads
from mmkd.tap import Side, Trace
from mmkd.testing import classification_batch, tiny_classifier, tiny_pspnet


def ready(*scores, **options):
    """With heads that hand the student's features on, and the trace of some teachers."""
    objective = TaskHeads('pool', 'head.fc', **options)
    objective.heads.extend(torch.nn.Identity() for _ in scores)
    model, pixels = torch.nn.Module(), torch.zeros(1, 3, 8, 8)
    features = torch.zeros(1, 3, requires_grad=True)
    teachers = {
        name: Side(model, pixels, {'head.fc': [[torch.tensor([z])]]})
        for name, z in zip('ab', scores, strict=False)
    }
    return (
        objective,
        Trace(pixels, [], Side(model, pixels, {'pool': [[features]]}), teachers),
        features,
    )


def test_values_of_the_sheet():
    """(2, 1, 0) against zeros: 1.098612, its gradient, and the floor."""
    objective, trace, features = ready((2.0, 1.0, 0.0))
    loss = objective(trace)['loss_a']
    assert float(loss) == pytest.approx(1.098612, abs=1e-6)
    (gradient,) = torch.autograd.grad(loss, features)
    wanted = torch.tensor([[-0.331908, 0.088605, 0.243303]])
    torch.testing.assert_close(gradient, wanted, atol=1e-6, rtol=0)
    scores = torch.tensor([2.0, 1.0, 0.0]).double()
    floor = float(torch.special.entr(scores.softmax(0)).sum())
    assert floor == pytest.approx(0.832396, abs=1e-6), 'its least value'
    same, trace, _ = ready((0.0, 0.0, 0.0))
    assert float(same(trace)['loss_a']) == pytest.approx(1.098612, abs=1e-6)


def test_each_teacher_has_a_term():
    objective, trace, _ = ready((2.0, 1.0, 0.0), (0.0, 0.0, 6.0), tau=2.0)
    found = objective(trace)
    assert set(found) == {'loss_a', 'loss_b'}
    assert all(float(x) == pytest.approx(1.098612, abs=1e-6) for x in found.values())


def distiller(teachers, **options):
    torch.manual_seed(0)
    entry = dict(type='mmkd.TaskHeads', **options)
    student = tiny_classifier(4, num_classes=3)
    return Distiller(student, dict(heads=entry), teachers, task_weight=None).train()


def test_teachers_of_other_classes():
    """The backbone learns from both; the student's own head does not."""
    teachers = {
        name: dict(config=tiny_classifier(8, num_classes=count), checkpoint='random')
        for name, count in (('cats', 5), ('cars', 2))
    }
    model = distiller(teachers, teacher_name=['cats', 'cars'])
    heads = model.objectives['heads'].heads
    assert [head.out_features for head in heads] == [5, 2]
    inputs, samples = classification_batch(4, (16, 16))
    losses = model.loss(inputs, samples)
    assert {*losses} >= {'kd.heads.loss_cats', 'kd.heads.loss_cars'}
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    assert all(p.grad is not None for p in model.backbone.parameters())
    assert model.head.fc.weight.grad is None
    assert "teacher 'cars': linear" in str(model.plan)


def test_one_teacher_and_its_own_head_is_kd():
    """Up to the teacher's entropy, with the student's layer as head."""
    teacher = dict(config=tiny_classifier(8, num_classes=3), checkpoint='random')
    model = distiller(teacher)
    kd = dict(kd=dict(type='mmkd.KD', tau=1.0))
    other = Distiller(tiny_classifier(4, num_classes=3), kd, teacher, task_weight=None).train()
    other.student.load_state_dict(model.student.state_dict())
    for name in ('weight', 'bias'):
        own = getattr(model.objectives['heads'].heads[0], name)
        own.data.copy_(getattr(model.head.fc, name))
    other.teachers['teacher'].model.load_state_dict(model.teachers['teacher'].model.state_dict())
    inputs, samples = classification_batch(4, (16, 16))
    p = model.teachers['teacher'].model.eval()(inputs, mode='tensor').softmax(1)
    entropy = torch.special.entr(p).sum(1).mean()
    found = model.loss(inputs, samples)['kd.heads.loss_teacher'] - entropy
    torch.testing.assert_close(
        found, other.loss(inputs, samples)['kd.kd.loss'], atol=1e-5, rtol=1e-4
    )


def test_bad_input():
    with pytest.raises(ValueError, match='TaskHeads: temperature tau'):
        TaskHeads(tau=0)
    teacher = dict(config=tiny_classifier(8), checkpoint='random')
    both = dict(good=teacher, bad=dict(config=tiny_pspnet(8), checkpoint='random'))
    with pytest.raises(ValueError, match='TaskHeads: .* has no class scores of whole images'):
        distiller(both, teacher_name=['good', 'bad'], student='pool')
    with pytest.raises(ValueError, match="one vector of class scores of teacher 'teacher'"):
        distiller(teacher, teacher=['head.fc', 'pool'])
