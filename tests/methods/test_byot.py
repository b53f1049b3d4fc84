"""BYOT, against the sheet's numbers and the equation on a whole network."""

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

from mmkd.methods.byot import BYOT, feature_distance, soft_label
from mmkd.teacher import build_model
from mmkd.testing import tiny_faster_rcnn


def test_worked_numbers():
    hard, soft = float(F.cross_entropy(Q1, Y)), float(soft_label(Q1, QK, 3.0))
    assert hard == pytest.approx(0.861995, abs=1e-6)
    assert soft == pytest.approx(0.356138, abs=1e-6)
    assert 0.7 * hard + 0.3 * soft == pytest.approx(0.710238, abs=1e-6)
    assert float(soft_label(Q1, QK, 3.0, 'code')) == pytest.approx(1.083792, abs=1e-6)
    own, deepest = torch.tensor([[1.0, 2], [0, 1]]), torch.tensor([[0.0, 2], [2, 1]])
    assert float(feature_distance(own, deepest)) == pytest.approx(1.5)
    assert float(feature_distance(own, deepest, 'code')) == pytest.approx(2.236068, abs=1e-6)


@pytest.mark.parametrize('variant', ['paper', 'code'])
def test_a_step_is_the_equation_written_out(variant):
    model = distiller(BYOT(alpha=0.4, beta=0.2, tau=2.0, variant=variant)).eval()
    objective, (inputs, samples) = model.objectives['it'], batch()
    found = terms(model, (inputs, samples))
    labels = torch.cat([sample.gt_label for sample in samples])
    with torch.no_grad():
        maps = model.student.backbone(inputs)
        deepest = maps[-1].mean((2, 3))
        target = model.student.head(deepest)
        hard = soft = apart = 0.0
        for i, branch in enumerate(objective.exits):
            logits, features = branch(maps[i])
            hard += float(F.cross_entropy(logits, labels))
            p, q = ((z / 2).softmax(1) for z in (target, logits))
            entropy = float((p * p.log()).sum(1).mean())
            cross = -float((p * q.log()).sum(1).mean())
            soft += 4 * (cross + entropy) if variant == 'paper' else cross
            if variant == 'paper':
                apart += float((features - deepest).square().sum(1).sqrt().mean())
            elif i == 0:  # the deepest exit has no feature term in the code
                adapted = objective.adapters[0](features)
                apart += float((adapted - deepest).square().sum().sqrt())
    assert len(objective.adapters) == (variant == 'code')
    wanted = dict(loss_ce=0.6 * hard, loss_kd=0.4 * soft, loss_feature=0.2 * apart)
    assert {k: float(found[k].detach()) for k in wanted} == pytest.approx(wanted, rel=1e-4)


def test_without_distillation_it_is_deep_supervision_bit_for_bit():
    model = distiller(BYOT(alpha=0, beta=0))
    twin = copy.deepcopy(model)
    inputs, samples = batch()
    found = terms(model, (inputs, samples))
    total = sum(value for key, value in found.items() if key.startswith('loss'))
    maps = twin.student.backbone(inputs)
    labels = torch.cat([sample.gt_label for sample in samples])
    exits = twin.objectives['it'].exits
    logits = [branch(x)[0] for branch, x in zip(exits, maps, strict=False)]
    last = twin.student.head(twin.student.pool(maps[-1]))
    wanted = F.cross_entropy(last, labels) + sum(F.cross_entropy(z, labels) for z in logits)
    assert torch.equal(total, wanted)
    ours, stock = gradients(model, total), gradients(twin, wanted)
    assert ours.keys() == stock.keys()
    for name in ours:  # sums of three gradients, in another order
        torch.testing.assert_close(ours[name], stock[name], msg=name)
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), twin.buffers(), strict=True))


def test_with_weight_zero_the_student_learns_as_alone():
    at_weight_zero(BYOT(weight=0))


def test_what_the_last_exit_teaches_reaches_nothing_behind_a_cut():
    model = distiller(BYOT('backbone[1]'))
    found = terms(model)
    for key in ('loss_ce', 'loss_kd', 'loss_feature'):
        reached = reaches(model, found[key])
        assert {'backbone.layer1', 'backbone.layer2', 'objectives.it'} <= reached
        assert not {'backbone.layer3', 'head.fc'} & reached


def test_labels_of_a_mixture_and_smoothing_are_the_students():
    model = distiller(BYOT(alpha=0, beta=0), network(label_smoothing=0.2)).eval()
    inputs, samples = batch()
    for sample in samples:
        sample.set_gt_score(torch.tensor([0.2, 0.3, 0.5]))
    objective = model.objectives['it']
    with torch.no_grad():
        maps = model.student.backbone(inputs)
        logits = [branch(x)[0] for branch, x in zip(objective.exits, maps, strict=False)]
    shares = torch.stack([sample.gt_score for sample in samples])
    wanted = sum(float(F.cross_entropy(z, shares, label_smoothing=0.2)) for z in logits)
    assert float(terms(model, (inputs, samples))['loss_ce'].detach()) == pytest.approx(wanted)


@pytest.mark.parametrize('kind', ['mmdet', 'wrn', 'vgg'])
def test_other_backbones_have_exits_behind_all_stages_but_the_last(kind):
    model = distiller(BYOT(), network(kind))
    found = terms(model, batch(8, (64, 64)))
    assert len(model.objectives['it'].exits) == dict(mmdet=3, wrn=2, vgg=3)[kind]
    assert 'exit 1: ' in str(model.plan)
    assert all(value.isfinite() for value in found.values())


@pytest.mark.parametrize(
    ('cuts', 'message'),
    [
        ('backbone.conv1', 'BYOT: the cut backbone.conv1 has the shape of a stage, but other val'),
        (['backbone[1]', 'backbone[0]'], r"objective 'it': BYOT: cuts must go deeper"),
        ('backbone[2]', 'the last stage, behind which the network has its own exit'),
        ('backbone[5]', r"'backbone\[5\]' selects nothing"),
        ('backbone.layer9', "no module 'backbone.layer9'"),
    ],
)
def test_refused_cuts(cuts, message):
    with pytest.raises(ValueError, match=message):
        distiller(BYOT(cuts))
    with pytest.raises(ValueError, match='the output of no stage; the stages give 4x64x64'):
        distiller(BYOT('backbone.conv1'), network('mmdet'))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(alpha=1.5), 'alpha must be'),
        (dict(beta=-1), 'beta must be'),
        (dict(tau=0), 'temperature tau'),
        (dict(variant='journal'), "variant must be one of .'paper', 'code'."),
    ],
)
def test_refused_options(options, message):
    with pytest.raises(ValueError, match=f'BYOT: {message}'):
        BYOT(**options)


def test_other_networks_are_refused():
    with pytest.raises(ValueError, match='BYOT is for classifiers of images'):
        distiller(BYOT(), build_model(tiny_faster_rcnn()))
    with pytest.raises(ValueError, match='one class'):
        distiller(BYOT(), network(num_classes=1))


def test_without_distillation_no_adapter_and_no_feature_term():
    model = distiller(BYOT(variant='code', beta=0))
    assert not len(model.objectives['it'].adapters) and 'loss_feature' not in terms(model)
    single = distiller(BYOT('backbone[0]', variant='code'))
    assert 'loss_feature' not in terms(single), 'the only exit is the deepest'
