"""GID against the sheet's numbers, its sums written out, and tiny detectors of each kind."""

import copy

import pytest
import torch
from detection_toys import detector, samples, step, total
from mmcv.ops import roi_align
from torch.nn import functional as F

from mmkd.families import two_stage
from mmkd.families.dense import dense_head
from mmkd.functional.boxes import box_levels
from mmkd.methods.gid import GID, feature_loss, instance_scores, relation_loss
from mmkd.rows import predictions


def points(*rows):
    return torch.tensor(rows, dtype=torch.float64)[:, :, None, None]


def test_scores():  # GID-1, GID-2
    p_t = torch.tensor([[0.9, 0.1], [0.2, 0.3], [0.5, 0.6], [0.2, 0.7]])
    p_s = torch.tensor([[0.4, 0.2], [0.1, 0.8], [0.5, 0.55], [0.7, 0.2]])
    found = instance_scores(p_s, p_t)
    torch.testing.assert_close(found, torch.tensor([0.5, 0.5, 0.05, 0.5]))
    assert float(instance_scores(p_s, p_t, 'code')[3]) == pytest.approx(0, abs=1e-7)
    assert (p_t.amax(-1) > p_s.amax(-1)).tolist()[:3] == [True, False, True]


def test_relation():  # GID-4, GID-5
    t, s = points((0, 0), (3, 4), (6, 8)), points((0, 0), (3, 4), (0, 8))
    assert float(relation_loss(s, t)) == pytest.approx(0.00694444, abs=1e-8)
    for changed in (s * 7, s + 3):
        torch.testing.assert_close(relation_loss(changed, t), relation_loss(s, t))
    torch.testing.assert_close(relation_loss(s, 0.1 * t - 5), relation_loss(s, t))
    assert float(relation_loss(t, t)) == 0
    both = torch.cat((s, s + 100)), torch.cat((t, t - 9))
    images = torch.tensor([0, 0, 0, 1, 1, 1])
    torch.testing.assert_close(relation_loss(*both, images), relation_loss(s, t))
    assert float(relation_loss(*both)) != pytest.approx(float(relation_loss(s, t)))


def test_relation_of_few_or_equal_instances():  # GID-8
    for q in (0, 1, 2):
        s = torch.randn(q, 2, 3, 3, requires_grad=True)
        loss = relation_loss(s, torch.randn(q, 2, 3, 3))
        assert loss == 0 and loss.requires_grad
    same = torch.ones(4, 2, 3, 3, requires_grad=True)
    loss = relation_loss(same, torch.randn(4, 2, 3, 3))
    assert torch.autograd.grad(loss, same)[0].isfinite().all()
    x = torch.randn(4, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    other = x.detach() ** 2
    assert torch.autograd.gradcheck(lambda y: relation_loss(y, other), x)


def test_feature():  # GID-6
    t = torch.tensor([[1.0, 2], [3, 3]]).view(2, 1, 1, 2)
    s = torch.tensor([[1.0, 0], [0, 3]]).view(2, 1, 1, 2).requires_grad_()
    assert float(feature_loss(s, t).detach()) == pytest.approx(3.25)
    assert float(feature_loss(s, t, 'paper').detach()) == pytest.approx(2.5)
    same = feature_loss(s, s.detach().clone(), 'paper')
    assert torch.autograd.grad(same, s)[0].isfinite().all()


def per_image(rois):
    return rois[:, 0].long().bincount(minlength=2).tolist()


def entropy_gap(student):
    return F.binary_cross_entropy_with_logits(
        torch.tensor(student), torch.tensor([2.0, -1.0]).sigmoid(), reduction='sum'
    )


def test_response_at_equality():  # GID-3
    assert float(entropy_gap([2.0, -1.0])) == pytest.approx(0.947537, abs=1e-6)
    assert float(entropy_gap([0.0, 0.0])) == pytest.approx(1.386294, abs=1e-6)
    student = detector('retinanet')
    objective = GID(adapt=None)
    losses, trace = step(objective, student, copy.deepcopy(student), train=False)
    for name in ('feature', 'relation', 'boxes'):
        assert float(losses[f'kd.o.loss_{name}'].detach()) == pytest.approx(0, abs=1e-5)
    answers = predictions.answers(trace)
    rois, _, scores, sizes = objective.general_instances(trace, answers)
    assert 0 < len(rois) <= 20 and scores.max() < 1e-5
    mask = predictions.positives(student, predictions.sizes_of(trace), rois, per_image(rois))
    p = answers[1][0][mask].double().sigmoid()
    entropy = -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p)).sum() / mask.sum()
    assert float(losses['kd.o.loss_classes'].detach()) == pytest.approx(
        0.1 * float(entropy), rel=1e-3
    )


def iou(a, b):
    inter = 1.0
    for d in (1, 2):
        inter *= max(float(min(a[d + 2], b[d + 2]) - max(a[d], b[d])), 0)
    area = sum(float((x[3] - x[1]) * (x[4] - x[2])) for x in (a, b))
    return inter / (area - inter)


@pytest.mark.parametrize('name', ['frcnn', 'retinanet', 'atss', 'gfl', 'fcos'])
def test_real_detectors(name):
    student, teacher = detector(name), detector(name, 1)
    if name == 'fcos':
        for model in (student, teacher):
            model.bbox_head.norm_on_bbox = True
    objective = GID(
        instances=4,
        min_side=6,
        relation_scope='image',
        feature_variant='paper',
        score_variant='code',
    )
    losses, trace = step(objective, student, teacher)
    total(losses).backward()
    assert total(losses).isfinite() and student.backbone.conv1.weight.grad.abs().sum() > 0
    assert len(objective.adapters) == 1
    assert all(p.grad is not None for p in objective.parameters())
    answers = predictions.answers(trace)
    rois, labels, scores, _ = objective.general_instances(trace, answers)  # GID-7
    assert losses['kd.o.instances'] == len(rois) > 2 and len(labels) == len(scores) == len(rois)
    for n in (0, 1):
        own = rois[rois[:, 0] == n]
        assert len(own) <= 4
        pairs = [(i, j) for i in range(len(own)) for j in range(i)]
        assert all(iou(own[i], own[j]) <= 0.3 + 1e-4 for i, j in pairs)
    (zs, rs), (zt, rt) = answers
    mask = predictions.positives(student, predictions.sizes_of(trace), rois, per_image(rois))
    assert mask.any()
    classes = boxes = 0.0
    for n, p in mask.nonzero().tolist():
        q = zt[n, p].sigmoid()
        classes -= (q * F.logsigmoid(zs[n, p]) + (1 - q) * F.logsigmoid(-zs[n, p])).sum()
        codes = (predictions.expected(student, x[n, p][None]) for x in (rs, rt))
        boxes += (next(codes) - next(codes)).abs().sum()
    torch.testing.assert_close(losses['kd.o.loss_classes'], 0.1 * classes / mask.sum())
    torch.testing.assert_close(losses['kd.o.loss_boxes'], boxes / mask.sum())
    adapter, pairs = objective.adapter(0), objective.maps(trace)
    cut, level = [], box_levels(rois[:, 1:], objective.strides).tolist()
    for roi, i in zip(rois, level, strict=True):
        args = roi[None], 10, 1 / objective.strides[i], 2, 'avg', True
        cut.append([roi_align(x, *args)[0] for x in (adapter(pairs[i][0]), pairs[i][1])])
    s, t = (torch.stack(x) for x in zip(*cut, strict=True))
    torch.testing.assert_close(losses['kd.o.loss_feature'], 5e-4 * feature_loss(s, t, 'paper'))
    wanted = 40 * relation_loss(s, t, rois[:, 0])
    torch.testing.assert_close(losses['kd.o.loss_relation'], wanted)
    assert len(objective.views(trace)) == 1


@pytest.mark.parametrize('name', ['frcnn', 'cascade'])
def test_second_stage(name):
    student, teacher = detector(name), detector(name, 1)
    objective = GID(second_stage=0.5, factors=dict(classes=2.0), min_side=6)
    losses, trace = step(objective, student, teacher)
    rois, *_ = objective.general_instances(trace, predictions.answers(trace))
    (z_s, r_s), (z_t, r_t) = (
        two_stage.box_outputs(side.model, side['neck'], rois)
        for side in (trace.student, trace.teacher)
    )
    kl = apart = 0.0
    for i in range(len(rois)):
        p_s, p_t = (z[i].double().softmax(0) for z in (z_s, z_t))
        kl += float((p_t * (p_t / p_s).log()).sum()) / len(rois)
        best = int(z_t[i, :-1].argmax())
        four = [r[i, 4 * best : 4 * best + 4] if r.shape[1] > 4 else r[i] for r in (r_s, r_t)]
        apart += float((four[0] - four[1]).abs().sum()) / len(rois)
    found = [float(losses[f'kd.o.loss_second_{k}'].detach()) for k in ('classes', 'boxes')]
    assert found == pytest.approx([0.5 * 2 * kl, 0.5 * apart], rel=1e-4)
    second = losses['kd.o.loss_second_classes'] + losses['kd.o.loss_second_boxes']
    reached = [two_stage.box_head(student).fc_cls.weight, student.backbone.conv1.weight]
    assert all(g.any() for g in torch.autograd.grad(second, reached, retain_graph=True))
    assert not any(p.requires_grad for p in teacher.parameters())
    plain, _ = step(GID(factors=dict(classes=2.0), min_side=6), student, teacher)
    assert not any('second' in key for key in plain)
    losses, _ = step(GID(second_stage=0.5, min_side=10**4), student, teacher, samples((0, 1)))
    assert total(losses) == 0 and total(losses).requires_grad


def test_second_stage_at_equality():
    student = detector('frcnn')
    losses, _ = step(GID(second_stage=1.0), student, copy.deepcopy(student), train=False)
    for name in ('classes', 'boxes'):
        assert float(losses[f'kd.o.loss_second_{name}'].detach()) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize('name', ['retinanet', 'fcos', 'frcnn'])
def test_positives(name):  # GID-9
    model = detector(name)
    sizes = dict(enumerate([(12, 16), (6, 8), (3, 4), (2, 2), (1, 1)]))
    grid = predictions.priors(model, sizes, torch.device('cpu'))
    if name == 'fcos':
        rois = torch.tensor([[1.0, 0, 0, 20, 9]])
        wanted = ((grid > 0) & (grid < torch.tensor([20.0, 9]))).all(1)
        where = wanted.nonzero()[:, 0]
    else:
        where = torch.tensor([len(grid) // 2])
        rois = torch.cat((torch.ones(1, 1), grid[where]), 1)
    found = predictions.positives(model, sizes, rois, [0, 1])
    assert found[1, where].all() and not found[0].any()
    assert not predictions.positives(model, sizes, rois[:0], [0, 0]).any()


def test_nothing_selected():
    student = detector('retinanet')
    objective = GID(min_side=10**4)
    losses, _ = step(objective, student, detector('retinanet', 1), samples((0, 1)))
    total(losses).backward()
    assert total(losses) == 0 and losses['kd.o.instances'] == 0
    assert all(p.grad is not None for p in objective.parameters())


def test_boxes_come_from_the_surer_side():
    student, teacher = detector('retinanet'), detector('retinanet', 1)
    for model, bias in ((student, -9.0), (teacher, 9.0)):
        dense_head(model).retina_cls.bias.data.fill_(bias)
        dense_head(model).retina_cls.weight.data.zero_()
    objective = GID()
    _, trace = step(objective, student, teacher)
    answers = predictions.answers(trace)
    rois, *_ = objective.general_instances(trace, answers)
    own = predictions.decode(student, answers[1][1], predictions.sizes_of(trace), trace.samples)
    first = rois[rois[:, 0] == 0][:, 1:]
    assert (first[:, None] == own[0]).all(-1).any(1).all()


def bound(student, teacher, **options):
    GID(**options).bind(student, teacher)


def other_unit():
    model = detector('fcos')
    model.bbox_head.norm_on_bbox = True
    return model


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: GID(iou=2), 'iou must be a finite number from 0 to 1, found 2'),
        (
            lambda: GID(factors=dict(feature=-1)),
            'factor feature must be a finite number of at least 0',
        ),
        (
            lambda: GID(second_stage=-1),
            'second_stage must be a finite number of at least 0, found -1',
        ),
        (
            lambda: bound(detector('retinanet'), detector('retinanet'), second_stage=1),
            'GID compares the box heads of two second stages',
        ),
        (
            lambda: bound(
                detector('frcnn'), detector('frcnn', reg_class_agnostic=True), second_stage=1
            ),
            'reg_class_agnostic: .* second_stage=0 leaves box heads out',
        ),
        (lambda: GID(instances=0), 'instances must be a whole number of at least 1, found 0'),
        (lambda: GID(score_variant='max'), 'score_variant must be one of'),
        (lambda: GID(feature_variant='max'), 'feature_variant must be one of'),
        (lambda: GID(relation_scope='max'), 'relation_scope must be one of'),
        (lambda: bound(detector('retinanet'), detector('gfl')), 'kinds of box codes: .* delta and'),
        (lambda: bound(detector('retinanet'), detector('atss')), 'equal priors a cell'),
        (
            lambda: bound(detector('fcos'), other_unit()),
            'norm_on_bbox: .* False and .* True',
        ),
        (
            lambda: bound(detector('gfl'), detector('gfl', num_classes=4)),
            'class counts: .* 3 and .* 4',
        ),
    ],
)
def test_bad_input(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_smooth_l1_of_boxes():
    assert GID(beta=0.1).beta == 0.1 and GID().beta == 0
    with pytest.raises(ValueError, match='GID: beta must be'):
        GID(beta=-0.1)
