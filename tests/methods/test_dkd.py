"""DKD against worked numbers, the identity that defines it, and real tiny detectors."""

import copy

import pytest
import torch
from detection_toys import detector, samples, step, total
from mmengine.structures import BaseDataElement
from segmentation_toys import ToyClassifier, ToySegmentor, make_step, prepare

from mmkd.families import classifier, two_stage
from mmkd.methods.dkd import DKD, decoupled_kl
from mmkd.methods.kd import soft_kl
from mmkd.options import check_temperature

ZS = torch.tensor([[1, 2, 3], [0.5, -0.5, 0], [0, 1, -1]], dtype=torch.float64)
ZT = torch.tensor([[2, 1, 4], [1, 0, -1], [-1, 3, 0]], dtype=torch.float64)
Y = torch.tensor([2, 0, 1])


def row(*values):
    return torch.tensor([values], dtype=torch.float64)


def test_detection_sheet():
    target, others = decoupled_kl(row(1, 1, 0), row(3, 1, 0), Y[1:2], 1.0)  # DKD-1
    assert (float(target), float(others)) == pytest.approx((0.379738, 0), abs=1e-6)
    zs, zt = row(1, 2, 0), row(3, 1, 0)  # DKD-2
    target, others = decoupled_kl(zs, zt, Y[1:2], 1.0)
    assert float(target) == pytest.approx(0.798250, abs=1e-6)
    assert float(others) == pytest.approx(0.082608, abs=1e-6)
    assert float(target + 0.25 * others) == pytest.approx(0.818902, abs=1e-6)
    assert float(soft_kl(zs, zt, 1.0)) == pytest.approx(0.811154, abs=1e-6)


@pytest.mark.parametrize(
    ('tau', 'target', 'others', 'both'),
    [(4.0, 0.228647, 0.424812, 3.6271455), (1.0, None, None, 3.2667685)],
)
def test_classification_fixture(tau, target, others, both):
    found = [x.mean() for x in decoupled_kl(ZS, ZT, Y, tau)]
    assert float(found[0] + 8 * found[1]) == pytest.approx(both, abs=1e-6)
    if target:
        assert [float(x) for x in found] == pytest.approx([target, others], abs=1e-6)


@pytest.mark.parametrize('tau', [0.5, 1.0, 4.0])
def test_identity_and_invariances(tau):  # DKD-3
    zs, zt = torch.randn(2, 20, 7, dtype=torch.float64).unbind()
    y = torch.randint(0, 7, (20,))
    target, others = decoupled_kl(zs, zt, y, tau)
    rest = 1 - (zt / tau).softmax(1).gather(1, y[:, None])[:, 0]
    torch.testing.assert_close(target + rest * others, soft_kl(zs, zt, tau))
    torch.testing.assert_close(decoupled_kl(zs + 3, zt - 2, y, tau), (target, others))
    moved = zs.scatter_add(1, y[:, None], torch.ones(20, 1, dtype=torch.float64))
    torch.testing.assert_close(decoupled_kl(moved, zt, y, tau)[1], others)
    assert (decoupled_kl(zs[:, :2], zt[:, :2], y % 2, tau)[1] == 0).all()
    assert all((x.abs() < 1e-12).all() for x in decoupled_kl(zt, zt, y, tau))


def test_extreme_logits_and_gradient():
    zs = torch.tensor([[1e4, 0.0, -1e4], [0.0, 200.0, 0.0]], requires_grad=True)
    zt = torch.tensor([[-1e4, 1e4, 0.0], [300.0, 0.0, 1.0]])
    sum(x.sum() for x in decoupled_kl(zs, zt, torch.tensor([0, 1]), 1.0)).backward()
    assert zs.grad.isfinite().all()
    z = ZS.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: sum(decoupled_kl(x, ZT, Y, 2.0)).sum(), z)


@pytest.mark.parametrize('name', ['frcnn', 'cascade'])
def test_rois_of_the_step(name):
    student, teacher = detector(name), detector(name, 1)
    objective = DKD()
    losses, trace = step(objective, student, teacher)
    assert (objective.tau, objective.beta) == (1, 0.25)
    scores, rois = (trace.student[tap][0] for tap in objective.student_taps[:2])
    labels = trace.student.raw(objective.student_taps[2])[0][0]
    assert len(trace.student.raw(objective.student_taps[2])) == 1
    assert len(labels) == len(rois) and set(labels.tolist()) <= {0, 2, 3} and 3 in labels
    wanted = two_stage.roi_outputs(teacher, trace.teacher['neck'], rois)[0]
    target, others = decoupled_kl(scores, wanted, labels, 1.0)
    torch.testing.assert_close(losses['kd.o.loss_target'], target.mean())
    torch.testing.assert_close(losses['kd.o.loss_others'], 0.25 * others.mean())
    total(losses).backward()
    assert student.backbone.conv1.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in teacher.parameters())
    assert len(objective.views(trace)) == 2


def test_images_without_boxes_and_options():
    student = detector('frcnn')
    losses, _ = step(DKD(alpha=2, beta=0, tau=3), student, detector('frcnn', 1), samples((0, 1)))
    assert losses['kd.o.loss_target'] > 0 and losses['kd.o.loss_others'] == 0
    losses, trace = step(DKD(), copy.deepcopy(student), student, train=False)
    assert float(total(losses).detach()) == pytest.approx(0, abs=1e-5)
    objective = DKD()
    objective.on_rois, objective.beta, objective.tau = True, 1.0, 1.0
    empty = torch.zeros(0, 4, requires_grad=True)
    objective.logits = lambda _: (empty, empty, torch.zeros(0).long())
    total({f'kd.o.{k}': v for k, v in objective(trace).items()}).backward()
    assert empty.grad is not None


def test_classifiers():
    student, teacher = ToyClassifier(), ToyClassifier()
    objective = prepare(DKD(), student, teacher)
    trace = make_step(objective, student, teacher)
    trace.samples = [BaseDataElement(gt_label=torch.tensor([1])), BaseDataElement(gt_label=2)]
    trace.samples[1].gt_score = torch.tensor([0.6, 0.1, 0.3])
    losses = objective(trace)
    s, t = trace.student['head.fc'][0], trace.teacher['head.fc'][0]
    target, others = decoupled_kl(s, t, torch.tensor([1, 0]), 4.0)
    torch.testing.assert_close(losses['loss_target'], target.mean())
    torch.testing.assert_close(losses['loss_others'], 8 * others.mean())
    assert objective.views(trace) == []
    with pytest.raises(ValueError, match='without gt_label'):
        classifier.labels([BaseDataElement()])


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: DKD(tau=0), 'tau must be a finite number above 0'),
        (lambda: DKD(beta=-1), 'beta must be a finite number of at least 0'),
        (
            lambda: DKD().bind(ToySegmentor(), ToyClassifier()),
            'ToySegmentor, which classifies pixels',
        ),
        (lambda: DKD().bind(ToyClassifier(), ToyClassifier(5)), 'student.* has 3 and .* 5'),
        (lambda: DKD().bind(ToyClassifier(1), ToyClassifier(1)), 'one class is always 1'),
        (
            lambda: DKD().bind(detector('frcnn'), detector('retinanet')),
            'the teacher RetinaNet with',
        ),
        (lambda: DKD().bind(detector('retinanet'), detector('frcnn')), 'RoIs or images'),
        (
            lambda: DKD().bind(detector('frcnn'), detector('frcnn', num_classes=5)),
            "student's head has 3 and the teacher's 5",
        ),
        (lambda: check_temperature('DKD', float('nan')), 'finite number above 0'),
    ],
)
def test_bad_input(build, message):
    with pytest.raises(ValueError, match=message):
        build()
