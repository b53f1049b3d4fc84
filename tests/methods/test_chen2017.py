"""Chen2017 against the sheet's numbers, the equations per RoI and anchor, and tiny detectors."""

import copy

import pytest
import torch
from detection_toys import detector, samples, step, total
from torch.nn import functional as F

from mmkd.families import dense, two_stage
from mmkd.functional.logit_distances import weighted_binary_cross_entropy
from mmkd.methods.chen2017 import Chen2017, bounded_regression, weighted_cross_entropy
from mmkd.rows import predictions

P_T, P_S, W = (
    torch.tensor(x, dtype=torch.float64) for x in ([0.2, 0.3, 0.5], [0.1, 0.3, 0.6], [1, 1, 1.5])
)


def test_soft_numbers():  # CHEN-1, CHEN-2, CHEN-3
    value = float(weighted_cross_entropy(P_S.log(), P_T.log(), W))
    assert value == pytest.approx(1.204828, abs=1e-6)
    ones = torch.ones(3, dtype=torch.float64)
    assert float(weighted_cross_entropy(P_S.log(), P_T.log(), ones)) == pytest.approx(
        1.077122, abs=1e-6
    )
    for weight, gradient in ((W, [0.05, 0.075, -0.125]), (ones, [0.0, 0.0, 0.0])):
        z = P_T.log().requires_grad_()
        loss = weighted_cross_entropy(z, P_T.log(), weight)
        assert torch.autograd.grad(loss, z)[0].tolist() == pytest.approx(gradient, abs=1e-12)
    assert float(weighted_cross_entropy(P_T.log(), P_T.log(), W)) == pytest.approx(
        1.202940, abs=1e-6
    )
    best = (W * P_T / (W * P_T).sum()).log().requires_grad_()
    gradient = torch.autograd.grad(weighted_cross_entropy(best, P_T.log(), W), best)[0]
    assert gradient.abs().max() < 1e-12


def test_kl_is_lower_by_a_constant():
    z = torch.randn(5, 3, dtype=torch.float64)
    both = [weighted_cross_entropy(z, P_T.log().expand(5, 3), W, 2.0, e) for e in (True, False)]
    assert float((both[0] - both[1]).std()) < 1e-12
    assert float(weighted_cross_entropy(P_T.log(), P_T.log(), W, 2.0, False)) == 0


def test_binary_number():  # CHEN-6
    z = torch.tensor([[0.6, 0.8]], dtype=torch.float64).logit()
    value = weighted_binary_cross_entropy(z[:, 0], z[:, 1], (1.0, 1.5))
    assert float(value) == pytest.approx(0.683548, abs=1e-6)


def test_bounded_regression():  # CHEN-4, CHEN-5
    error_s, error_t = (
        torch.tensor([0.01, 0.09, 0.01, 0.05]),
        torch.tensor([0.04, 0.04, 0.25, 0.05]),
    )
    target = torch.zeros(4, 4, dtype=torch.float64)
    s, t = (F.pad(e.double().sqrt()[:, None], (0, 3)).requires_grad_() for e in (error_s, error_t))
    off = bounded_regression(s, t, target, 0.0)
    assert off[[0, 2]].tolist() == [0, 0] and float(off[1].detach()) == pytest.approx(0.09)
    exact = bounded_regression(torch.eye(4) / 2, torch.eye(4) / 2, target.float(), 0.0)
    assert exact.tolist() == [0, 0, 0, 0]  # a tie is bounded off
    on = bounded_regression(s, t.detach(), target, 0.05)
    assert on.tolist() == pytest.approx([0.01, 0.09, 0, 0.05], abs=1e-7)
    assert float(on.mean().detach()) == pytest.approx(0.0375)
    on.mean().backward()
    active = torch.tensor([[1.0], [1], [0], [1]])
    torch.testing.assert_close(s.grad, (2 * s / 4 * active).detach())
    assert t.grad is None


def one_by_one(zs, zt, weight):
    """Soft loss of each row in float64; zs, zt (R, C)."""
    p_s, p_t = zs.double().softmax(1), zt.double().softmax(1)
    return -(weight * p_t * p_s.log()).sum(1)


@pytest.mark.parametrize('mode', ['class', 'sample'])
def test_faster_rcnn(mode):
    student, teacher = detector('frcnn'), detector('frcnn', 1)
    objective = Chen2017(weight_mode=mode, margin=0.01, mu=0.2, nu=0.7)
    losses, trace = step(objective, student, teacher)
    (scores, deltas), (wanted, boxes) = two_stage.answers(trace)
    rois = trace.student[two_stage.rois_tap(student)][0]
    torch.testing.assert_close(
        two_stage.roi_outputs(teacher, trace.teacher['neck'], rois)[0], wanted
    )
    labels, _, targets, _ = two_stage.targets(trace)
    weight = torch.tensor([1, 1, 1, 1.5]) if mode == 'class' else 1 + 0.5 * (labels == 3)[:, None]
    soft = one_by_one(scores, wanted, weight).mean()
    assert float(losses['kd.o.loss_rcn_soft'].detach()) == pytest.approx(
        0.8 * float(soft.detach()), rel=1e-5
    )
    bound = 0.0
    for r in (labels < 3).nonzero()[:, 0].tolist():
        four = slice(4 * int(labels[r]), 4 * int(labels[r]) + 4)
        error_s, error_t = (float(((x[r, four] - targets[r]) ** 2).sum()) for x in (deltas, boxes))
        bound += error_s if error_s + 0.01 > error_t else 0
    assert bound > 0
    assert float(losses['kd.o.loss_rcn_bound']) == pytest.approx(
        0.7 * bound / len(labels), rel=1e-5
    )
    check_anchors(losses, trace, 'rpn_', mode)
    hint = sum(((s - t) ** 2).mean() for s, t in objective.tensor_pairs(trace)) / 5
    torch.testing.assert_close(losses['kd.o.loss_hint'], 0.5 * hint)
    total(losses).backward()
    assert student.rpn_head.rpn_cls.weight.grad.abs().sum() > 0
    assert all(p.grad is not None for p in objective.parameters()) and len(objective.adapters) == 5


def check_anchors(losses, trace, prefix, mode):
    """The dense terms, level by level and without a sampled set."""
    feats, model = trace.teacher['neck'], trace.teacher.model
    head = trace.student.model.rpn_head if prefix else trace.student.model.bbox_head
    own = trace.student[dense.outputs_tap(trace.student.model)]
    wanted = predictions.head_outputs(model, feats)
    targets = dense.targets(trace)
    soft = bound = count = 0.0
    k = head.num_classes
    for level in range(5):
        rows = [
            x[i].permute(0, 2, 3, 1).flatten() for x in (own, wanted) for i in (level, level + 5)
        ]
        zs, rs, zt, rt = (x.view(-1, w).double() for x, w in zip(rows, (k, 4, k, 4), strict=True))
        labels, used = targets[0][level].flatten(), targets[1][level].flatten() > 0
        count += int(used.sum())
        pt = zt.sigmoid()
        fg = F.one_hot(labels, k + 1)[:, :k].bool()
        w = (1.0, 1.5) if mode == 'class' else (torch.where(fg, 1.0, 1.5),) * 2
        terms = -(w[0] * pt * F.logsigmoid(zs) + w[1] * (1 - pt) * F.logsigmoid(-zs)).sum(1)
        soft += float(terms[used].sum())
        y = targets[2][level].reshape(-1, 4)
        error_s, error_t = (((x - y) ** 2).sum(1) for x in (rs, rt))
        on = used & (labels < k) & (error_s + 0.01 > error_t)
        bound += float(error_s[on].sum())
    assert float(losses[f'kd.o.loss_{prefix}soft']) == pytest.approx(0.8 * soft / count, rel=1e-4)
    assert float(losses[f'kd.o.loss_{prefix}bound']) == pytest.approx(0.7 * bound / count, rel=1e-4)


def test_retinanet():
    student, teacher = detector('retinanet'), detector('retinanet', 1)
    objective = Chen2017(margin=0.01, mu=0.2, nu=0.7, hint='l1', reduction='sum_per_image')
    losses, trace = step(objective, student, teacher)
    assert {k for k in losses if 'kd' in k} == {f'kd.o.loss_{x}' for x in ('soft', 'bound', 'hint')}
    check_anchors(losses, trace, '', 'class')
    hint = sum((s - t).abs().sum() / 2 for s, t in objective.tensor_pairs(trace)) / 5
    torch.testing.assert_close(losses['kd.o.loss_hint'], 0.5 * hint)


def test_hard_part_and_plain_loss():  # CHEN-7
    student, teacher = detector('frcnn'), detector('frcnn', 1)
    plain, _ = step(Chen2017(mu=1, nu=0, gamma=0), copy.deepcopy(student), teacher)
    assert all(float(v.detach()) == 0 for k, v in plain.items() if k.startswith('kd.o.loss'))
    weights = dict(loss_cls=0.2, loss_rpn_cls=0.2)
    mixed, _ = step(Chen2017(mu=0.2), copy.deepcopy(student), teacher, task_weight=weights)
    for key, value in plain.items():
        if not key.startswith('kd'):
            value = sum(value) if isinstance(value, list) else value
            found = sum(mixed[key]) if isinstance(mixed[key], list) else mixed[key]
            torch.testing.assert_close(found, value * (0.2 if key in weights else 1.0))
    objective = Chen2017(mu=0.2, additive=True)
    added, _ = step(objective, copy.deepcopy(student), teacher)
    torch.testing.assert_close(added['kd.o.loss_rcn_soft'], 5 * mixed['kd.o.loss_rcn_soft'])
    assert 'losses count 1 and soft ones 4' in objective.describe()[0]


@pytest.mark.parametrize(
    ('options', 'task_weight', 'message'),
    [
        (dict(mu=0.2), 1.0, r'set task_weight=dict\(loss_cls=0.2, loss_rpn_cls=0.2\).*found 1.0'),
        (dict(mu=0.2), dict(loss_cls=0.2), 'loss_rpn_cls=0.2'),
        (dict(mu=0.2), dict(cls=0.2), None),
        (dict(mu=0.2), 0.2, None),
        (dict(mu=0.2, additive=True), 1.0, None),
    ],
)
def test_the_hard_losses_are_checked(options, task_weight, message):
    objective = Chen2017(**options)
    objective.bind(detector('frcnn'), detector('frcnn', 1))
    if message is None:
        objective.check_task_weight(task_weight)
        return
    with pytest.raises(ValueError, match=message):
        objective.check_task_weight(task_weight)


def test_the_hard_losses_of_a_peer_always_count_1():
    objective = Chen2017(mu=0.2, learner='other')
    objective.bind(detector('frcnn'), detector('frcnn', 1))
    assert 'losses must count 0.2 and' in objective.describe()[0]
    with pytest.raises(ValueError, match="those of the peer 'other' count 1.*set additive=True"):
        objective.check_task_weight(dict(loss_cls=0.2, loss_rpn_cls=0.2))
    Chen2017(mu=0.2, additive=True, learner='other').check_task_weight(0.2)


def test_same_network_and_no_boxes():
    student = detector('frcnn')
    objective = Chen2017(soft='kl', w_bg=1, adapt=None)
    losses, _ = step(objective, student, copy.deepcopy(student), train=False)
    assert float(total(losses).detach()) == pytest.approx(0, abs=1e-5)
    losses, _ = step(Chen2017(), detector('frcnn'), student, samples((0, 1)))
    assert losses['kd.o.loss_rcn_bound'] == 0 and losses['kd.o.loss_rcn_bound'].requires_grad
    assert total(losses).isfinite()


def test_cascade_teacher():
    losses, _ = step(Chen2017(), detector('frcnn'), detector('cascade'))
    assert total(losses).isfinite() and losses['kd.o.loss_rcn_bound'] > 0


def bound(student, teacher=None, **options):
    Chen2017(**options).bind(student, teacher or copy.deepcopy(student))


def decoded():
    return detector('frcnn', reg_decoded_bbox=True, loss_bbox=dict(type='GIoULoss'))


def finer():
    model = detector('retinanet')
    model.bbox_head.prior_generator.strides[0] = (4, 4)
    return model


def larger():
    model = detector('retinanet')
    model.bbox_head.prior_generator.base_anchors[0] = (
        model.bbox_head.prior_generator.base_anchors[0] * 2
    )
    return model


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: Chen2017(mu=2), 'mu must be a finite number from 0 to 1'),
        (lambda: Chen2017(mu=0, additive=True), 'additive=True mu must be above 0'),
        (lambda: Chen2017(nu=-1), 'nu must be a finite number of at least 0, found -1'),
        (lambda: Chen2017(tau=0), 'tau must be a finite number above 0'),
        (lambda: Chen2017(soft='mse'), 'soft must be one of'),
        (lambda: bound(detector('gfl')), 'student is GFL with GFLHead and'),
        (
            lambda: bound(detector('retinanet'), detector('frcnn')),
            'teacher FasterRCNN is an RPN, .* of the student RetinaNet with RetinaHead separates classes',
        ),
        (
            lambda: bound(detector('frcnn'), detector('retinanet')),
            'second stages .* teacher RetinaNet',
        ),
        (lambda: bound(decoded()), 'Shared2FCBBoxHead regresses decoded'),
        (lambda: bound(detector('retinanet'), finer()), r'equal strides: .*\[8, 16.*\[4, 16'),
        (lambda: bound(detector('retinanet'), larger()), 'equal priors: those of .* RetinaHead'),
    ],
)
def test_bad_input(build, message):
    with pytest.raises(ValueError, match=message):
        build()
    bound(decoded(), nu=0)
