"""Losses on gradients in the pixels: closed forms of linear networks, and a real step."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmkd.distiller import Distiller
from mmkd.functional.input_gradient import input_gradients
from mmkd.methods.at_gradient import ATGradient, gradient_distance
from mmkd.methods.jacobian import Jacobian, row_distance
from mmkd.tap import Side, Tap, Trace
from mmkd.teacher import Teacher, build_model
from mmkd.testing import class_labels, classification_batch, tiny_classifier, tiny_pspnet

LABELS = torch.tensor([2, 0])


class Linear(nn.Module):
    """Logits that are linear in the pixels, so that gradients are known."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.head = nn.Module()
        self.head.fc = nn.Linear(12, 3)

    def forward(self, inputs, samples=None, mode='tensor'):
        return self.head.fc(inputs.flatten(1))


@pytest.fixture
def step():
    student, teacher = Linear(0), Linear(1).requires_grad_(False)
    inputs = torch.randn(2, 3, 2, 2, requires_grad=True)
    sides = [
        Side(model, inputs.detach() if model is teacher else inputs, {'head.fc': [model(inputs)]})
        for model in (student, teacher)
    ]
    return Trace(inputs, class_labels(LABELS), *sides, sides_progress())


def sides_progress():
    from mmkd.schedule import Progress

    return Progress(0, 10)


def closed_form(model, inputs):
    """``W^T (p - onehot(y))``, (N, 12)."""
    p = model(inputs).softmax(1) - F.one_hot(LABELS, 3)
    return p @ model.head.fc.weight


def test_gradient_of_the_cross_entropy_in_closed_form(step):
    pair = input_gradients(
        step, Tap.parse('head.fc'), lambda z: F.cross_entropy(z, LABELS, reduction='none')
    )
    wanted = [closed_form(side.model, step.inputs) for side in (step.student, step.teacher)]
    for found, known in zip(pair, wanted, strict=True):
        torch.testing.assert_close(found.flatten(1), known)
    assert pair[0].requires_grad and not pair[1].requires_grad
    objective = ATGradient()
    objective.bind(step.student.model, step.teacher.model)
    loss = objective(step)['loss']
    assert float(loss) == pytest.approx(float((wanted[0] - wanted[1]).norm(dim=1).mean()) / 2)
    loss.backward()
    assert step.student.model.head.fc.weight.grad.any()
    assert step.teacher.model.head.fc.weight.grad is None


@pytest.mark.parametrize('outputs', ['label', 'teacher'])
def test_jacobian_row_of_one_class(step, outputs):
    objective = Jacobian(outputs=outputs)
    objective.bind(step.student.model, step.teacher.model)
    rows = LABELS if outputs == 'label' else step.teacher.raw('head.fc')[0].argmax(1)
    s, t = (F.normalize(m.head.fc.weight[rows]) for m in (step.student.model, step.teacher.model))
    assert float(objective(step)['loss']) == pytest.approx(float((s - t).square().sum(1).mean()))


def test_projections_estimate_the_whole_jacobian(step):
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
    same = s.clone().requires_grad_()
    gradient_distance(same, s).backward()
    assert same.grad.isfinite().all()


@pytest.mark.parametrize('cls', [ATGradient, Jacobian])
def test_a_real_step_trains_the_student_through_the_pixels(cls):
    torch.manual_seed(0)
    student, teacher = (build_model(tiny_classifier(width)) for width in (4, 8))
    distiller = Distiller(student, dict(it=cls()), Teacher(teacher, 'random'), preflight=False)
    inputs, samples = classification_batch()
    distiller.loss(inputs, samples)['kd.it.loss'].backward()
    assert student.backbone.conv1.weight.grad.any()
    assert inputs.grad is None and not inputs.requires_grad, "the caller's batch is left alone"


@pytest.mark.parametrize('cls', [ATGradient, Jacobian])
def test_what_is_refused(cls):
    with pytest.raises(ValueError, match='for classifiers of images'):
        cls().bind(*(build_model(tiny_pspnet(8)) for _ in range(2)))
    with pytest.raises(ValueError, match='outputs must be one of'):
        Jacobian(outputs='all')


@pytest.mark.parametrize('kind', [ATGradient, Jacobian])
def test_the_first_steps_find_it_alive(kind):
    """Of a network of ReLUs the Jacobian depends on the weights and not on the logits."""
    torch.manual_seed(0)
    teacher = build_model(tiny_classifier(8))
    distiller = Distiller(
        build_model(tiny_classifier(4)), dict(it=kind()), Teacher(teacher, 'random')
    )
    distiller.train()
    for _ in range(distiller.guard.steps):
        distiller.loss(*classification_batch())
    assert distiller.guard.alive == {'kd.it.loss'}
