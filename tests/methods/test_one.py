"""ONE, against the sheet's numbers, the equation on a whole network, and its degenerate forms."""

import pytest
import torch
from exit_toys import at_weight_zero, batch, distiller, gradients, network, reaches, terms
from torch import nn
from torch.nn import functional as F

from mmkd.functional.logit_distances import soft_kl
from mmkd.methods.one import ONE, Gate, _tail, ensemble, ramp
from mmkd.schedule import Progress
from mmkd.tap import Trace
from mmkd.teacher import build_model
from mmkd.testing import tiny_faster_rcnn

Z = [torch.tensor([row], dtype=torch.float64) for row in ([2.0, 0, 0], [0.0, 1, 0], [0.0, 0, 3])]


def test_worked_numbers():
    gates = torch.tensor([[1.0, 0, 0]], dtype=torch.float64).softmax(1)
    assert gates[0].tolist() == pytest.approx([0.576117, 0.211942, 0.211942], abs=1e-6)
    together = ensemble(Z, gates)
    assert together[0].tolist() == pytest.approx([1.152234, 0.211942, 0.635825], abs=1e-6)
    assert float(soft_kl(Z[0], together, 3.0)) == pytest.approx(0.212887, abs=1e-6)
    hard = [float(F.cross_entropy(z, torch.tensor([0]))) for z in (*Z, together)]
    assert hard == pytest.approx([0.239545, 1.551445, 3.094923, 0.686713], abs=1e-6)
    found = [ramp(epoch / 80) for epoch in (0, 20, 40, 80, 200)]
    assert found == pytest.approx([0.006738, 0.060055, 0.286505, 1, 1], abs=1e-6)


def test_equal_gates_give_the_mean_of_the_logits():
    gates = torch.full((1, 3), 1 / 3, dtype=torch.float64)
    torch.testing.assert_close(ensemble(Z, gates), sum(Z) / 3)


def test_the_gate():
    torch.manual_seed(0)
    gate, x = Gate(4, 3), torch.randn(6, 4, 5, 5)
    scores = gate.fc(x.mean((2, 3)))
    norm = (scores - scores.mean(0)) / (scores.var(0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(gate(x), norm.clamp(min=0).softmax(1))
    assert float(gate(x[:1]).detach().sum()) == pytest.approx(1), 'a batch of one image'
    (gate(x[:1]) ** 2).sum().backward()
    assert gate.bn.weight.grad is not None, 'parameters without gradients stop DDP'


@pytest.mark.parametrize('kind', ['learnt', 'uniform'])
@pytest.mark.parametrize('backbone', ['resnet', 'wrn', 'vgg', 'mmdet'])
def test_a_step_is_the_equation_written_out(kind, backbone):
    model = distiller(ONE(gate=kind, tau=2.0), network(backbone)).eval()
    objective, (inputs, samples) = model.objectives['it'], batch(size=(32, 48))
    found = terms(model, (inputs, samples))
    labels = torch.cat([sample.gt_label for sample in samples])
    shown = []
    stage = str(objective.student_taps[0]).partition('@')[0]
    hook = model.student.get_submodule(stage).register_forward_pre_hook(
        lambda _, args: shown.append(args[0])
    )
    with torch.no_grad():
        logits = [model.student(inputs)]
        hook.remove()
        logits += [branch(shown[0]) for branch in objective.branches]
        gates = objective.gate(shown[0]) if kind == 'learnt' else torch.full((8, 3), 1 / 3)
        together = sum(g[:, None] * z for g, z in zip(gates.T, logits, strict=True))
        hard = sum(float(F.cross_entropy(z, labels)) for z in (*logits[1:], together))
        soft = 0.0
        for z in logits:
            p, q = ((x / 2).softmax(1) for x in (together, z))
            soft += 4 * float((p * (p / q).log()).sum(1).mean())
    assert (objective.gate is None) == (kind == 'uniform')
    assert float(found['loss_ce'].detach()) == pytest.approx(hard, rel=1e-4)
    assert float(found['loss_kd'].detach()) == pytest.approx(ramp(0) * soft, rel=1e-3, abs=1e-7)


@pytest.mark.parametrize('backbone', ['resnet', 'wrn', 'vgg', 'mmdet'])
def test_branches_start_apart_and_with_the_networks_weights_they_are_the_network(backbone):
    model = distiller(ONE(branches=2), network(backbone)).eval()
    objective, inputs = model.objectives['it'], batch(size=(32, 48))[0]
    with model.recorder.record(inputs) as side, torch.no_grad():
        wanted = model.student(inputs)
    shared, branch = side[objective.student_taps[0]][0], objective.branches[0]
    stage = str(objective.student_taps[0]).partition('@')[0]
    tail = _tail(model.student, stage, objective.student_taps)
    own, others = branch.state_dict(), nn.Sequential(*tail).state_dict()
    matrices = [k for k in own if own[k].dim() > 1]
    assert matrices and not any(torch.equal(own[k], others[k]) for k in matrices)
    branch.load_state_dict(others)
    with torch.no_grad():
        assert torch.equal(branch(shared), wanted)


def test_who_learns_from_what():
    model = distiller(ONE())
    found = terms(model)
    kd, ce = reaches(model, found['loss_kd']), reaches(model, found['loss_ce'])
    assert {'backbone.layer3', 'head.fc', 'objectives.it', 'backbone.conv1'} <= kd
    named = gradients(model, found['loss_kd'])
    assert not any(name.startswith('objectives.it.gate') for name in named), 'a detached target'
    assert any(name.startswith('objectives.it.gate') for name in gradients(model, found['loss_ce']))
    assert 'head.fc' in ce, 'through the ensemble'
    assert {'gate_0', 'gate_1', 'gate_2'} < set(found)


def test_the_divergence_rises_with_the_run():
    model = distiller(ONE(gate='uniform', rise=0.5)).eval()
    inputs, samples = batch()
    with model.recorder.record(inputs) as side:
        model.student(inputs, samples, mode='loss')

    def trace(iteration):
        return Trace(inputs, samples, side, {}, Progress(iteration, 100))

    values = [float(model.objectives['it'](trace(i))['loss_kd'].detach()) for i in (0, 50, 99)]
    assert values[1] == values[2] > 0 and values[0] / values[1] == pytest.approx(ramp(0), rel=1e-4)


def test_with_weight_zero_the_student_learns_as_alone():
    at_weight_zero(ONE(weight=0))


def test_the_deployed_student_is_plain():
    model = distiller(ONE())
    own = {k: v for k, v in model.state_dict().items() if not k.startswith('objectives.')}
    network().load_state_dict(own, strict=True)
    assert any(k.startswith('objectives.it.branches.1.') for k in model.state_dict())
    assert '2 copies of the last stage and head, ' in str(model.plan)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(branches=1), 'branches must be a whole number of at least 2, found 1'),
        (dict(tau=0), 'temperature tau must be'),
        (dict(gate='none'), 'gate must be one of'),
        (dict(rise=0), 'rise must be a finite number above 0 and at most 1'),
        (dict(stage='layer1'), "ONE copies the last stage, backbone.layer3, but stage='layer1'"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        distiller(ONE(**options))


def test_the_last_stage_may_be_named():
    assert distiller(ONE(stage='backbone.layer3')).objectives['it'].count == 3


def test_a_detector_has_no_branches():
    with pytest.raises(ValueError, match='ONE is for classifiers of images'):
        distiller(ONE(), build_model(tiny_faster_rcnn(4)))


def test_a_network_that_goes_on_behind_its_last_stage_is_refused():
    student = network()
    plain = student.backbone.forward
    student.backbone.forward = lambda x: tuple(2 * m for m in plain(x))
    with pytest.raises(ValueError, match='behind backbone.layer3 a Classifier on CifarResNet does'):
        distiller(ONE(), student)
