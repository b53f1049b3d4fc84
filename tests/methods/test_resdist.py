"""ResDist: the sheet's total, tails of the teacher, gradients through it, and bad pairs."""

import copy

import pytest
import torch
from torch import nn

from mmkd.distiller import Distiller
from mmkd.families import classifier
from mmkd.methods.resdist import ResDist, joined
from mmkd.schedule import Schedule
from mmkd.tap import Tap
from mmkd.teacher import Teacher, build_model
from mmkd.testing import classification_batch, tiny_classifier

RESNET = dict(
    type='mmdet.ResNet', depth=18, base_channels=4, stem_channels=4, norm_eval=False,
    frozen_stages=-1,
)  # fmt: skip


def distiller(student=None, teacher=None, task_weight=1 / 3, seed=0, dtype=None, **options):
    torch.manual_seed(seed)
    student, teacher = (build_model(x or tiny_classifier(4)) for x in (student, teacher))
    objectives = dict(it=ResDist(**options))
    frozen = Teacher(teacher, checkpoint='random', dtype=dtype)
    return Distiller(student, objectives, frozen, task_weight=task_weight, preflight=False)


def test_total_of_the_sheet():
    found = (joined(0.5, [1, 0.9, 0.8], 0.75) + 1e-3 * joined(10, [40, 30, 20], 0.75)) / 4
    assert found == pytest.approx(0.650625)


def test_the_weight_of_the_tails_falls_as_published():
    m = Schedule.of(dict(value=1, decay='cosine', end_value=0.5))
    assert [m(0), m(0.5), m(1 - 1e-9)] == pytest.approx([1, 0.75, 0.5])


@pytest.mark.parametrize('backbone', [None, RESNET], ids=['cifar', 'mmdet'])
def test_the_tail_carries_on_as_the_network_does(backbone):
    torch.manual_seed(0)
    entry = tiny_classifier(4)
    model = build_model(dict(entry, backbone=backbone) if backbone else entry).eval()
    stages = classifier.stage_taps(model)
    taps = [Tap.parse(x) for x in (*stages, 'head.fc', classifier.preact_taps(model)[-1])]
    side = classifier.shown(model, taps)
    for place, stage in enumerate(stages[:-1]):
        scores, feature = classifier.carry_on(model, side[stage][0], place)
        torch.testing.assert_close(scores, side['head.fc'][0], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(feature, side[taps[-1]][-1], atol=1e-6, rtol=1e-5)


def test_a_teacher_of_half_precision_is_copied_once_a_step(monkeypatch):
    it = distiller(dtype='bf16')
    made, stock = [], classifier.in_precision
    monkeypatch.setattr(classifier, 'in_precision', lambda *a: made.append(stock(*a)) or made[-1])
    losses = it.loss(*classification_batch(4))
    assert losses['kd.it.loss_ce'].isfinite() and len(it.objectives['it'].cuts) == 2
    teacher = it.teachers['teacher'].model
    assert next(teacher.parameters()).dtype == torch.bfloat16
    assert [next(x.parameters()).dtype for x in made] == [torch.float32]
    assert stock(teacher, torch.bfloat16) is teacher


def test_equal_networks_have_the_teachers_losses_at_every_cut():
    it = distiller(seed=0)
    it.student.load_state_dict(it.teachers['teacher'].model.state_dict())
    inputs, samples = classification_batch(4)
    it.eval()
    losses = it.loss(inputs, copy.deepcopy(samples))
    own = float(losses['loss_cls'].detach()) * 3
    assert float(losses['kd.it.loss_ce']) == pytest.approx(2 * own / 3, rel=1e-5)


def test_gradients_flow_through_a_teacher_that_does_not_change():
    it = distiller()
    teacher = it.teachers['teacher'].model
    before = copy.deepcopy(teacher.state_dict())
    inputs, samples = classification_batch(4)
    losses = it.loss(inputs, samples)
    losses['kd.it.loss_ce'].backward()
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters()) and not teacher.training
    grads = {n: p.grad for n, p in it.student.named_parameters()}
    assert grads['backbone.layer2.0.conv2.weight'].abs().sum() > 0
    assert grads['backbone.layer3.0.conv1.weight'] is None  # behind the last cut


def test_factors_and_cuts():
    inputs, samples = classification_batch(4)

    def losses(**options):
        return distiller(**options).loss(inputs, copy.deepcopy(samples))

    whole, half = losses(), losses(m=0.5)
    assert half['kd.it.loss_ce'] == 0.5 * whole['kd.it.loss_ce']
    assert 0 < half['kd.it.loss_feature'] < whole['kd.it.loss_feature']
    more = losses(w=2e-3)
    torch.testing.assert_close(more['kd.it.loss_feature'], 2 * whole['kd.it.loss_feature'])
    one = losses(cuts='backbone.layer1', task_weight=0.5)
    assert 0 < one['kd.it.loss_ce'] != whole['kd.it.loss_ce']
    alone = losses(m=0, w=0, scale=1, task_weight=1)
    student = distiller(m=0, w=0, scale=1, task_weight=1).student
    plain = student(inputs, copy.deepcopy(samples), mode='loss')['loss_cls']
    assert alone['kd.it.loss_ce'] == alone['kd.it.loss_feature'] == 0
    assert torch.equal(alone['loss_cls'], plain)


@pytest.mark.parametrize(
    'options, words',
    [
        (dict(cuts='backbone.layer3'), 'inside of a stage or behind the last one'),
        (dict(cuts='backbone.layer1.0.conv1'), 'inside of a stage'),
        (dict(teacher=tiny_classifier(8)), r'gives \(4, .* the teacher.s tail takes \(8,'),
        (dict(teacher=dict(tiny_classifier(4), backbone=RESNET)), '3 stages and the teacher 4'),
        (dict(m=-1), 'm must be'),
        (dict(w=-1), 'w must be'),
        (dict(scale=0), 'scale must be'),
    ],
)
def test_bad_pairs(options, words):
    with pytest.raises(ValueError, match=words):
        distiller(**options)


def test_another_task_weight():
    with pytest.raises(ValueError, match=r'counts 1/n = 0.3333, but task_weight makes it 1\.'):
        distiller().objectives['it'].check_task_weight(1.0)


def test_a_margin_needs_the_numbers_of_a_batch_norm():
    it = build_model(tiny_classifier(4))
    it.backbone.layer3[-1].bn2 = nn.BatchNorm2d(16, affine=False)
    with pytest.raises(ValueError, match='affine=False'):
        ResDist().bind(build_model(tiny_classifier(4)), it)


def test_a_teacher_without_a_tail():
    it = build_model(tiny_classifier(4))
    plain = it.backbone.forward
    it.backbone.forward = lambda x: tuple(2 * y for y in plain(x))
    with pytest.raises(ValueError, match='cannot be run one after the other'):
        ResDist().bind(build_model(tiny_classifier(4)), it)


def joint(seed=0, **options):
    torch.manual_seed(seed)
    objectives = dict(it=ResDist(teacher_name='whole', **options))
    student, peers = build_model(tiny_classifier(4)), dict(whole=build_model(tiny_classifier(4)))
    return Distiller(student, objectives, peers=peers, task_weight=1 / 3, preflight=False)


def test_a_teacher_that_learns_is_heard_as_it_is_now():
    """JOINT: its tails and its feature are those of evaluation mode, and only its own loss moves it."""
    it = joint()
    whole, inputs = it.peers['whole'], classification_batch(4)[0]
    samples = classification_batch(4)[1]
    it.student.load_state_dict(whole.state_dict())
    it.eval()
    losses = it.loss(inputs, copy.deepcopy(samples))
    own = float(losses['peer.whole.loss_cls'].detach())
    assert float(losses['kd.it.loss_ce'].detach()) == pytest.approx(2 * own / 3, rel=1e-5)
    losses['kd.it.loss_ce'].backward(retain_graph=True)
    losses['kd.it.loss_feature'].backward()
    assert all(p.grad is None for p in whole.parameters())
    assert it.student.backbone.layer2[0].conv2.weight.grad.abs().sum() > 0

    def feature():
        return it.loss(inputs, copy.deepcopy(samples))['kd.it.loss_feature'].detach()

    before = feature()
    with torch.no_grad():
        whole.backbone.layer3[-1].bn2.running_mean += 1  # a record of training would not show it
    shifted = feature()
    with torch.no_grad():
        whole.backbone.layer3[-1].bn2.running_mean -= 1
        whole.backbone.layer3[-1].bn2.weight *= 2  # its margin falls with it
    assert before != shifted and feature() not in (before, shifted)
    it.train()
    in_training = it.loss(inputs, copy.deepcopy(samples))['kd.it.loss_feature']
    assert in_training.isfinite()
