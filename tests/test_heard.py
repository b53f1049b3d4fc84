"""A network that still learns, as a teacher: constants, and a twin that may be asked again."""

import copy

import pytest
import torch
from distiller_toys import Square, batch, toy
from torch import nn

from mmkd.distiller import Distiller
from mmkd.engine.console.lines import plan_rows
from mmkd.heard import Heard, Twins
from mmkd.objective import PairObjective
from mmkd.plan.recording import record
from mmkd.tap import Recorder, parse_taps
from mmkd.testing import (
    ToyNet,
    classification_batch,
    detection_batch,
    segmentation_batch,
    tiny_classifier,
    tiny_faster_rcnn,
    tiny_pspnet,
)


class Distance(PairObjective):
    def compare(self, student, teacher):
        return (student - teacher).square().mean()


def own(**options):
    """Between two places of one network."""
    options = dict(student='neck.act', teacher='backbone', teacher_name='student') | options
    return Distance(**options)


def auxiliary(**options):
    entry = dict(student='auxiliary_head.conv_seg', teacher='decode_head.conv_seg')
    return dict(type='mmkd.CWD', teacher_name='student', **entry, **options)


def test_self_distillation_is_two_taps_of_one_network():
    torch.manual_seed(0)
    distiller = Distiller(tiny_pspnet(4, auxiliary=True), dict(it=auxiliary()))
    distiller.train()
    inputs, samples = segmentation_batch()
    found = distiller(inputs, samples, mode='loss')
    trace = record(distiller, inputs, samples)['it']
    assert list(trace.teachers) == ['student'] and trace.student.model is distiller.student
    loss = found['kd.it.loss']
    reached = {n: p for n, p in distiller.named_parameters()}
    grads = torch.autograd.grad(loss, list(reached.values()), allow_unused=True)
    touched = {name.split('.')[0] for name, g in zip(reached, grads, strict=True) if g is not None}
    assert touched == {'backbone', 'auxiliary_head'}
    text = str(distiller.plan)
    assert '  student auxiliary_head.conv_seg: ' in text
    assert '  student, as teacher decode_head.conv_seg: ' in text
    rows = dict(plan_rows(distiller))
    assert 'student: auxiliary_head.conv_seg <- student, as teacher: decode_head.conv' in rows['it']


def test_the_value_is_that_of_the_two_tensors():
    torch.manual_seed(0)
    distiller = toy(dict(it=own()), teacher={})
    inputs, samples = batch()
    taps = Recorder(distiller.student, parse_taps(['neck.act', 'backbone']))
    with taps.record(inputs) as side:
        distiller.student(inputs, samples, mode='loss')
    wanted = (side['neck.act'][0] - side['backbone'][0]).square().mean()
    assert torch.equal(distiller.loss(inputs, samples)['kd.it.loss'], wanted)


def test_at_weight_zero_the_losses_are_the_plain_ones():
    torch.manual_seed(0)
    model = ToyNet(norm='BN')
    plain, distiller = copy.deepcopy(model), toy(dict(it=own(weight=0)), {}, model)
    inputs, samples = batch()
    a, b = plain(inputs, samples, mode='loss'), distiller.loss(inputs, samples)
    assert torch.equal(a['loss_cls'], b['loss_cls'])


def test_values_are_constants_and_the_twin_shares_the_weights():
    net = ToyNet(norm='BN', dropout=0.5).train()
    twins = Twins()
    with Recorder(net, parse_taps('neck')).record(batch()[0]) as side:
        net(batch()[0])
    heard = Heard(side, twins)
    assert not any(t.requires_grad for t in heard['neck']) and side['neck'][0].requires_grad
    twin = heard.model
    assert twin is heard.model and twin is not net
    assert not any(m.training for m in twin.modules()) and net.training
    assert not any(p.requires_grad for p in twin.parameters())
    before = {name: b.clone() for name, b in net.named_buffers()}
    twin(batch()[0])
    assert all(torch.equal(b, before[name]) for name, b in net.named_buffers())
    with torch.no_grad():
        net.head.fc.weight.add_(1)
    assert torch.equal(twin.head.fc.weight, net.head.fc.weight)
    net.double()
    assert heard.model.head.fc.weight.dtype == torch.float64
    assert copy.deepcopy(twins)._known == {}


def test_a_network_with_a_buffer_of_its_own_kind_is_twinned_again_when_it_replaces_it():
    net, twins = nn.BatchNorm1d(2), Twins()
    first = twins.of(net)
    net.running_mean = torch.ones(2)
    assert twins.of(net) is not first and torch.equal(twins.of(net).running_mean, torch.ones(2))


def test_a_box_head_that_is_asked_again_is_a_constant():
    """KD of RoIs asks its teacher's box head, here the student's own: the answer is the same."""
    torch.manual_seed(0)
    distiller = Distiller(
        tiny_faster_rcnn(4), dict(kd=dict(type='mmkd.KD', teacher_name='student'))
    )
    distiller.train()
    found = distiller(*detection_batch(), mode='loss')['kd.kd.loss']
    assert found.requires_grad and float(found.detach()) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ('objective', 'message'),
    [
        (own(student='neck', teacher=None), 'with itself at neck, .*auxiliary_head'),
        (Square(learner='elder'), "asks for learner='elder'. Networks that learn: student"),
        (Square(learner='teacher'), "asks for learner='teacher'. Networks that learn: student"),
        (Square(teacher_name='studend'), "Teachers: teacher. Did you mean 'student'"),
    ],
)
def test_who_cannot_teach_whom(objective, message):
    with pytest.raises(ValueError, match=f"objective 'it': .*{message}"):
        toy(dict(it=objective))


def test_two_names_of_one_place_are_refused_in_the_first_step():
    torch.manual_seed(0)
    student = tiny_classifier(4)
    entry = dict(type='mmkd.FitNet', student='backbone.layer2', teacher='backbone[1]')
    data = classification_batch()
    for who in ('student', 'other'):
        objective = dict(entry, learner=who, teacher_name=who)
        peers = dict(other=tiny_classifier(8))
        distiller = Distiller(copy.deepcopy(student), dict(it=objective), peers=peers).train()
        where = 'with itself at backbone.layer2, backbone.1., which is always equal'
        with pytest.raises(ValueError, match=f"'it': FitNet compares {who} {where}"):
            distiller(*data, mode='loss')


def test_constants_at_two_places_are_no_single_place():
    torch.manual_seed(0)
    student = ToyNet()
    for parameter in student.backbone.parameters():
        nn.init.zeros_(parameter)
    distiller = toy(dict(it=own(student='backbone.0', teacher='backbone')), {}, student)
    assert float(distiller.loss(*batch())['kd.it.loss'].detach()) == 0


def test_no_teacher_may_be_called_student():
    from mmkd.teacher import Teacher

    teachers = dict(student=Teacher(ToyNet(), checkpoint='random'))
    with pytest.raises(
        ValueError, match="two networks are called 'student' among student, student"
    ):
        toy(dict(it=Square()), teachers)


def test_a_frozen_teacher_is_heard_at_its_auxiliary_head():
    """mmseg runs it in training alone; the route of the teacher runs it as well."""
    torch.manual_seed(0)
    entry = dict(type='mmkd.CWD', student='decode_head.conv_seg', teacher='auxiliary_head.conv_seg')
    wide = dict(config=tiny_pspnet(8, auxiliary=True), checkpoint='random')
    distiller = Distiller(tiny_pspnet(4), dict(it=entry), wide).train()
    inputs, samples = segmentation_batch()
    assert float(distiller(inputs, samples, mode='loss')['kd.it.loss'].detach()) > 0
    assert 'runs tensor + auxiliary_head' in str(distiller.plan)
    model = distiller.teachers['teacher'].model
    feats = model.extract_feat(record(distiller, inputs, samples)['it'].teacher.inputs)
    seen = record(distiller, inputs, samples)['it'].teacher['auxiliary_head.conv_seg']
    assert len(seen) == 1 and torch.equal(seen[0], model.auxiliary_head(feats))
