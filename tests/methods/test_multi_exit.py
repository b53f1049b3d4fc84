"""MultiExit: the loss of the sheet, the annealed temperature, and refused options."""

import copy

import pytest
import torch
from exit_toys import (
    Q1,
    QK,
    Y,
    at_weight_zero,
    batch,
    distiller,
    gradients,
    network,
    reaches,
    terms,
)
from torch.nn import functional as F

from mmkd.methods.byot import BYOT
from mmkd.methods.multi_exit import MultiExit, annealed, soft_targets

SURE = torch.tensor([[6.0, 0, 0, 0]], dtype=torch.float64)


def test_two_exits():
    hard = sum(float(F.cross_entropy(z, Y)) for z in (Q1, QK))
    soft = float(soft_targets([Q1], QK, 2.0))
    assert 0.5 * hard + 0.5 * soft == pytest.approx(2.678752, abs=1e-6)


def test_the_temperature_grows_until_the_prediction_is_soft():
    tau, steps = torch.ones((), dtype=torch.float64), 0
    seen = []
    while (new := annealed(tau, SURE, 0.5)) > tau:
        seen.append(float((SURE / tau).softmax(1).max()))
        tau, steps = new, steps + 1
    assert steps == 35 and float(tau) == pytest.approx(5.516015, abs=1e-6)
    assert seen[-1] == pytest.approx(0.510877, abs=1e-6)
    assert float((SURE / tau).softmax(1).max()) == pytest.approx(0.497282, abs=1e-6)
    assert float(annealed(tau, SURE, 0.5)) == float(tau), 'it never falls'


def test_the_mean_of_the_batch_decides_and_the_cap_holds():
    tau = torch.ones(())
    rows = torch.tensor([[6.0, 0, 0, 0], [0, 0, 0, 0]])  # largest: .993, .25
    assert float(annealed(tau, rows, 0.6)) == pytest.approx(1.05)
    assert float(annealed(tau, rows, 0.63)) == 1
    assert float(annealed(torch.tensor(19.9), 1e4 * rows, 0.3)) == 20
    assert float(annealed(tau, 1e4 * rows, 0.3, multiplier=3.0, cap=2.0)) == 2


@pytest.mark.parametrize(('n', 'wanted'), [(3, 10 / 3), (2, 5.0)])
def test_the_scale_counts_the_exits(n, wanted):
    cuts = [f'backbone[{i}]' for i in range(n - 1)]
    assert distiller(MultiExit(cuts)).objectives['it'].scale == pytest.approx(wanted)


def test_a_step_is_the_equation_written_out():
    model = distiller(MultiExit(c=0.25, scale=2.0), task_weight=1.5).eval()
    objective, (inputs, samples) = model.objectives['it'], batch()
    objective.temperature.fill_(3.0)
    found = terms(model, (inputs, samples))
    labels = torch.cat([sample.gt_label for sample in samples])
    with torch.no_grad():
        maps = model.student.backbone(inputs)
        last = model.student.head(maps[-1].mean((2, 3)))
        logits = [branch(x)[0] for branch, x in zip(objective.exits, maps, strict=False)]
    hard = sum(float(F.cross_entropy(z, labels)) for z in [*logits, last])
    p = (last / 3).softmax(1)
    soft = sum(9 * -float((p * (z / 3).log_softmax(1)).sum(1).mean()) for z in logits)
    total = sum(float(v.detach()) for k, v in found.items() if k.startswith('loss'))
    assert total == pytest.approx(2 * (0.75 * hard + 0.25 * soft), rel=1e-4)
    assert float(found['temperature']) == 3 and float(objective.temperature) == 3, 'not in eval'


def test_without_distillation_it_is_deep_supervision_bit_for_bit():
    """Whose other form is BYOT with alpha=0 and beta=0."""
    ours, other = distiller(MultiExit(c=0, scale=1)), distiller(BYOT(alpha=0, beta=0))
    other.objectives['it'].exits.load_state_dict(ours.objectives['it'].exits.state_dict())
    found, wanted = terms(ours), terms(other)
    assert torch.equal(found['loss_ce'], wanted['loss_ce'])
    assert torch.equal(found['loss_cls'], wanted['loss_cls'])
    assert float(found['loss_kd'].detach()) == 0
    grads = [
        gradients(model, sum(v for k, v in losses.items() if k.startswith('loss')))
        for model, losses in ((ours, found), (other, wanted))
    ]
    assert grads[0].keys() == grads[1].keys()
    assert all(torch.equal(grads[0][name], grads[1][name]) for name in grads[0])


def test_the_last_exit_gets_no_gradient_from_the_others():
    model = distiller(MultiExit())
    reached = reaches(model, terms(model)['loss_kd'])
    assert {'backbone.layer1', 'backbone.layer2', 'objectives.it'} <= reached
    assert not {'backbone.layer3', 'head.fc'} & reached


def test_the_temperature_moves_in_training_and_is_saved():
    student = network()
    with torch.no_grad():
        student.head.fc.weight.mul_(100)
    model = distiller(MultiExit(mu=0.34), student)
    found = [float(terms(model)['temperature']) for _ in range(3)]
    assert found == pytest.approx([1, 1.05, 1.1025])
    twin = distiller(MultiExit(mu=0.34), network(seed=3))
    twin.load_state_dict(model.state_dict())
    assert float(twin.objectives['it'].temperature) == float(model.objectives['it'].temperature)
    fixed = distiller(MultiExit(mu=0.34, multiplier=1), copy.deepcopy(student))
    assert [float(terms(fixed)['temperature']) for _ in range(2)] == [1, 1]


def test_with_weight_zero_the_student_learns_as_alone():
    model = at_weight_zero(MultiExit(weight=0))
    assert float(model.objectives['it'].temperature) == 1


def test_the_students_own_loss_must_have_its_factor():
    objective = distiller(MultiExit()).objectives['it']
    for weight in (5 / 3, 1.667, dict(loss_cls=1.667)):
        objective.check_task_weight(weight)
    for weight in (1.0, dict(loss_cls=0.5)):
        with pytest.raises(ValueError, match=r'scale \* \(1 - c\) = 1.667; set task_weight=1.667'):
            objective.check_task_weight(weight)
    peer = distiller(MultiExit(c=0.5, scale=2)).objectives['it']
    peer.learner = 'other'
    peer.check_task_weight(0.1)
    peer.scale = 3
    with pytest.raises(ValueError, match="peer 'other' .* factor 1, but scale .* = 1.5"):
        peer.check_task_weight(1.5)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(mu=0.3), r'with mu=0.3 the temperature would grow for ever, .* 1 / 3'),
        (dict(mu=1 / 3), 'largest of 3 probabilities'),
        (dict(mu=1.5), 'mu must be'),
        (dict(c=2), 'c must be'),
        (dict(c=1), 'with c=1 the last exit, which teaches the others, learns nothing'),
        (dict(multiplier=0.9), 'multiplier must be'),
        (dict(cap=0.5), 'cap must be'),
        (dict(scale=0), 'scale must be'),
        (dict(cuts=['backbone[1]', 'backbone[0]']), 'cuts must go deeper'),
        (dict(cuts='backbone[2]'), 'shows the last stage'),
    ],
)
def test_refused(options, message):
    with pytest.raises(ValueError, match=message):
        distiller(MultiExit(**options))


def test_c_may_be_1_for_a_frozen_network():
    frozen = network()
    frozen.requires_grad_(False)
    frozen.backbone.layer1.requires_grad_(True)
    assert distiller(MultiExit(c=1), frozen).objectives['it'].c == 1
