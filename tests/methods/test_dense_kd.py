"""DenseKD: the sheet's numbers, the equations on real heads, every pair of heads, what is refused."""

import copy

import pytest
import torch
from detection_toys import detector, halved_step, samples, step, total
from mmdet.structures.bbox import bbox_overlaps
from torch.nn import functional as F

from mmkd.families import assignments
from mmkd.methods.dense_kd import DenseKD, box_distance, shortfall
from mmkd.methods.kd import KD
from mmkd.rows import heads
from mmkd.teacher import build_model
from mmkd.testing import tiny_yolov3

HEADS = ['retinanet', 'atss', 'paa', 'gfl', 'fcos', 'vfnet', 'tood', 'rtmdet', 'yolox']


def tensors(*values):
    return [torch.tensor(value, dtype=torch.float64) for value in values]


# ------------------------------------------------------------------------------ numbers of the sheet


def test_two_anchors():  # BCKD-1
    z_t, z_s = tensors([[2, -3.0], [-1, 0]], [[0, -3.0], [1, 0]])
    b_t, b_s = tensors([[0, 0, 8, 8], [2, 2, 6, 6]], [[0, 0, 8, 4], [2, 2, 6, 8]])
    objective = DenseKD()
    each = objective._class_distance(z_s, z_t)
    assert each.flatten().tolist() == pytest.approx([0.2639484, 0, 0.4825983, 0], abs=1e-7)
    assert float(each.sum()) == pytest.approx(0.7465467, abs=1e-7)
    weight = (z_s.sigmoid() - z_t.sigmoid()).abs().amax(-1)
    assert weight.tolist() == pytest.approx([0.3807971, 0.4621172], abs=1e-7)
    apart = box_distance(b_s, b_t)
    assert apart.tolist() == pytest.approx([0.5, 1 / 3], abs=1e-5)  # mmdet's area has an epsilon
    boxes = objective.factors['boxes'] * (weight * apart).sum()
    assert float(boxes) == pytest.approx(1.3777504, abs=1e-5)
    assert float(each.sum() + boxes) == pytest.approx(2.1242971, abs=1e-5)


def test_a_teachers_box_without_area_teaches_nothing():
    boxes, others = tensors([[0, 0, 8, 8.0]] * 3, [[4, 4, 4, 8.0], [6, 2, 3, 8], [0, 0, 8, 8]])
    assert box_distance(boxes, others).tolist() == [0, 0, 0]
    assert box_distance(others[:1] + 1, boxes[:1]).isfinite().all()


def test_shortfall():  # ILD-1, ILD-2
    truth, own, other = tensors(
        [[0, 0, 10, 10.0]] * 2, [[0, 0, 10, 5.0], [0, 0, 10, 9]], [[0, 0, 10, 8.0]] * 2
    )
    own.requires_grad_()
    weight = shortfall(own, other, truth)
    assert weight.tolist() == pytest.approx([0.3, 0], abs=1e-6) and not weight.requires_grad
    apart = box_distance(own, other)
    assert apart.tolist() == pytest.approx([1 - 0.625, 1 - 0.8888889], abs=1e-6)
    loss = (weight * apart).sum() / 2
    assert float(loss.detach()) == pytest.approx(0.05625, abs=1e-6)
    better = (shortfall(other, own.detach(), truth)[:1] * apart[:1]).sum()
    assert float(better.detach()) == 0 and better.requires_grad


# --------------------------------------------------------------------------- the equations, on heads


def literal(trace, objective):
    """Loss terms written out, from logits, boxes and the recorded assignment, in float64."""
    own, wanted = heads.answers(trace, objective.pairs)
    z, z_t = own.logits.detach().double(), wanted.logits.double()
    b, b_t = own.boxes().detach().double(), wanted.boxes().double()
    p, q = z.sigmoid(), z_t.sigmoid()
    found = assignments.assignment(trace)
    bce = -(q * F.logsigmoid(z) + (1 - q) * F.logsigmoid(-z))
    entropy = -(q * F.logsigmoid(z_t) + (1 - q) * F.logsigmoid(-z_t))
    tau = objective.tau
    soft = [F.logsigmoid(sign * x / tau) for sign in (1, -1) for x in (z, z_t)]
    kl = soft[1].exp() * (soft[1] - soft[0]) + soft[3].exp() * (soft[3] - soft[2])
    both = 0.5 * q * -F.logsigmoid(z) + 0.5 * (1 - q) * -F.logsigmoid(-z)
    classes = dict(
        bckd=(q - p).abs() * bce,
        qfl=(q - p) ** 2 * bce,
        kl=tau**2 * kl,
        varifocal=q * bce,
        adl=(1 - torch.exp(-(bce - objective.beta * entropy))) ** 2 * both,
    )
    giou = bbox_overlaps(b, b_t, mode='giou', is_aligned=True)
    apart = (1 - giou) * ((b_t[..., 2:] - b_t[..., :2]) > 0).all(-1)
    truth = assignments.target_boxes(trace, own.sizes).double()
    ious = [bbox_overlaps(x, truth, is_aligned=True) for x in (b, b_t)]
    boxes = dict(
        giou=(q - p).abs().amax(-1) * apart,
        confidence=q.amax(-1) * apart,
        bounded=(ious[1] - ious[0]).clamp(min=0) * found.positive * apart,
    )
    counts = dict(
        positives=found.positive.sum(1).clamp(min=1).sum(),
        confidence=q.amax(-1).sum(),
        power=(q**1.8).sum(),
    )
    count = counts[objective.normaliser].clamp(min=1)
    weights = found.weights.double() if objective.mask_ignore else torch.ones_like(q[..., 0])
    result = {}
    if objective.classes:
        result['classes'] = (classes[objective.classes].sum(-1) * weights).sum() / count
    if objective.boxes:
        result['boxes'] = (
            objective.factors['boxes'] * (boxes[objective.boxes] * weights).sum() / count
        )
    return {key: float(value) for key, value in result.items()}


def terms_of(losses):
    return {
        k.removeprefix('kd.o.loss_'): float(v.detach()) for k, v in losses.items() if '.loss' in k
    }


@pytest.mark.parametrize('name', HEADS)
def test_every_head(name):
    objective = DenseKD()
    student = detector(name)
    losses, trace = step(objective, student, detector(name, 1))
    found = terms_of(losses)
    assert found == pytest.approx(literal(trace, objective), rel=1e-4)
    assert min(found.values()) > 1e-3
    total(losses).backward()
    felt = {n for n, p in student.named_parameters() if p.grad is not None and p.grad.any()}
    assert 'backbone.conv1.weight' in felt and len([n for n in felt if 'bbox_head' in n]) > 3
    assert all(0 < losses[f'kd.o.score_{side}'] < 1 for side in ('student', 'teacher'))


@pytest.mark.parametrize('boxes', ['giou', 'bounded'])
def test_a_teacher_on_larger_images(boxes):
    objective = DenseKD(boxes=boxes)
    student = detector('retinanet')
    losses, trace = halved_step(objective, student, detector('retinanet', 1))
    assert objective.pairs == [(i, i + 1) for i in range(4)]
    assert '4 levels' in objective.describe()[0]
    whole = [x for k, x in losses.items() if k.startswith('kd.o.loss')]
    sum(whole).backward()
    assert student.backbone.conv1.weight.grad.abs().sum() > 0
    own, wanted = heads.answers(trace, objective.pairs)
    p, q = own.logits.sigmoid(), wanted.logits.sigmoid()
    found = assignments.assignment(trace)
    weights, positive = own.chosen(found.weights), own.chosen(found.positive)
    b, b_t = own.boxes(), wanted.boxes()
    grid = trace.teacher.model.bbox_head.prior_generator.grid_priors(
        [(24, 32), (12, 16), (6, 8), (3, 4), (2, 2)], device='cpu'
    )
    coder = trace.teacher.model.bbox_head.bbox_coder
    for image in range(2):
        decoded = coder.decode(torch.cat(grid[1:]), wanted.codes[image])
        torch.testing.assert_close(b_t[image], decoded / 2)
    apart = (1 - bbox_overlaps(b, b_t, mode='giou', is_aligned=True)) * weights
    if boxes == 'giou':
        apart = apart * (p - q).abs().amax(-1)
    else:
        truth = own.chosen(assignments.target_boxes(trace, own.sizes))
        ious = [bbox_overlaps(x, truth, is_aligned=True) for x in (b, b_t)]
        apart = apart * (ious[1] - ious[0]).clamp(min=0) * positive
    count = found.positive.sum(1).clamp(min=1).sum()
    value = float((4 * apart.sum() / count).detach())
    assert float(losses['kd.o.loss_boxes'].detach()) == pytest.approx(value, rel=1e-4)


OPTIONS = [
    dict(classes='qfl', boxes='confidence'),
    dict(classes='kl', tau=2.0, boxes=None),
    dict(classes='varifocal', boxes='bounded', normaliser='confidence'),
    dict(classes='adl', boxes=None, normaliser='power'),
    dict(classes='adl', beta=1.0, boxes=None, normaliser='power', mask_ignore=True),
    dict(classes=None, boxes='giou', factors=dict(boxes=0.5), normaliser='confidence'),
    dict(mask_ignore=False),
]


@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_options(options):
    objective = DenseKD(**options)
    losses, trace = step(objective, detector('retinanet'), detector('retinanet', 1))
    found = terms_of(losses)
    whole = [*objective.student_taps]
    if not objective.assigned:  # the oracle needs it
        _, trace = step(DenseKD(), detector('retinanet'), detector('retinanet', 1))
    assert found == pytest.approx(literal(trace, objective), rel=1e-4)
    assert len(whole) == 1 + objective.assigned


def test_distributions():
    objective = DenseKD(classes=None, boxes='distribution', tau=10.0, factors=dict(boxes=0.25))
    losses, trace = step(objective, detector('gfl'), detector('gfl', 1))
    own, wanted = heads.answers(trace, objective.pairs)
    found = assignments.assignment(trace)
    log_s, log_t = ((x.bins().detach() / 10).log_softmax(-1) for x in (own, wanted))
    kl = 100 * (log_t.exp() * (log_t - log_s)).mean(-1).sum(-1) / 4
    loss = (kl * own.logits.sigmoid().amax(-1) * found.positive).sum() / found.positive.sum()
    assert terms_of(losses) == pytest.approx(dict(boxes=0.25 * float(loss)), rel=1e-4)
    assert objective.needs_ground_truth


def test_levels_without_objects():
    pair = detector('gfl'), detector('gfl', 1)
    losses, trace = step(DenseKD(skip_empty_levels=True), *pair)
    whole, _ = step(DenseKD(), *pair)
    assert total(losses) < total(whole)
    objective = DenseKD()
    objective.bind(*pair)
    own, wanted = heads.answers(trace, objective.pairs)
    found = assignments.assignment(trace)
    taught = 0.0
    apart = objective._class_distance(own.logits, wanted.logits).sum(-1) * found.weights
    splits = zip(apart.split(own.counts, 1), found.positive.split(own.counts, 1), strict=True)
    used = [(level, bool(positive.any())) for level, positive in splits]
    assert {here for _, here in used} == {True, False}
    taught = sum(float(level.detach().sum()) for level, here in used if here)
    found = float(losses['kd.o.loss_classes'].detach())
    assert found == pytest.approx(
        taught / float(assignments.assignment(trace).normaliser()), rel=1e-5
    )


@pytest.mark.parametrize('detach', [False, True])
def test_gradient_of_the_weight(detach):
    slopes = []
    for objective in (DenseKD(boxes=None, detach_weight=detach), DenseKD(boxes=None)):
        student = detector('gfl')
        total(step(objective, student, detector('gfl', 1))[0]).backward()
        slopes.append(student.bbox_head.gfl_cls.weight.grad)
    assert torch.equal(*slopes) != detach


@pytest.mark.parametrize('name', HEADS)
def test_equal_networks(name):
    student = detector(name)
    # FCOS, VFNet and BatchNorms answer otherwise in training.
    train = name == 'vfnet'
    student.backbone.norm_eval = train
    losses, _ = step(DenseKD(), student, copy.deepcopy(student), train=train)
    ordinary, _ = step(DenseKD(), student, detector(name, 1), train=train)
    assert float(total(losses).detach()) < 1e-4 * float(total(ordinary).detach())


@pytest.mark.parametrize('name', ['retinanet', 'yolox', 'tood'])
def test_without_objects(name):
    student = detector(name)
    losses, _ = step(DenseKD(), student, detector(name, 1), samples((0, 1)))
    total(losses).backward()
    assert total(losses) > 0 and total(losses).isfinite()
    assert student.backbone.conv1.weight.grad.abs().sum() > 0
    bounded, _ = step(
        DenseKD(classes=None, boxes='bounded'), student, detector(name, 1), samples((0, 1))
    )
    assert float(total(bounded).detach()) == 0 and total(bounded).requires_grad


PAIRS = [
    ('gfl', 'atss'),
    ('gfl', 'rtmdet'),
    ('rtmdet', 'gfl'),
    ('yolox', 'rtmdet'),
    ('vfnet', 'tood'),
    ('paa', 'vfnet'),
]


@pytest.mark.parametrize(('name', 'other'), PAIRS)
def test_heads_of_unequal_kinds(name, other):
    common = 'common' if {'rtmdet', 'gfl'} == {name, other} else None
    objective = DenseKD(level_map=common)
    losses, trace = step(objective, detector(name), detector(other, 1))
    count = 3 if {'rtmdet', 'yolox'} & {name, other} else 5
    assert f'on {count} levels' in objective.describe()[0]
    own, wanted = heads.answers(trace, objective.pairs)
    assert own.logits.shape == wanted.logits.shape and own.counts == wanted.counts
    total(losses).backward()
    assert total(losses) > 0 and total(losses).isfinite()


def test_unequal_depth_and_width():
    student, teacher = detector('gfl', stacked_convs=2), detector('gfl', 1, feat_channels=16)
    assert total(step(DenseKD(), student, teacher)[0]) > 0


def test_a_small_rtmdet_has_negative_distances():
    """Its head has no exponential: boxes without area are finite, and as teacher they weigh 0."""
    student, teacher = (detector('rtmdet', seed, exp_on_reg=False) for seed in (0, 1))
    losses, trace = step(DenseKD(), student, teacher)
    wanted = heads.answers(trace, [(i, i) for i in range(3)])[1].boxes()
    assert not (wanted[..., 2:] > wanted[..., :2]).all()
    total(losses).backward()
    assert total(losses).isfinite() and student.backbone.conv1.weight.grad.isfinite().all()


def test_what_needs_no_ground_truth():
    for normaliser in ('confidence', 'power'):
        objective = DenseKD(normaliser=normaliser)
        step(objective, detector('gfl'), detector('gfl', 1))
        assert [str(tap) for tap in objective.student_taps] == ['bbox_head.forward()']
        assert 'needs no ground truth' in objective.describe()[0]
    assert DenseKD().assigned and DenseKD(boxes='bounded', normaliser='power').assigned


def test_views():
    objective = DenseKD()
    _, trace = step(objective, detector('yolox'), detector('yolox', 1))
    with torch.no_grad():
        views = objective.views(trace)
    assert [tuple(v.maps.shape) for v in views] == [(2, 12, 16), (2, 6, 8), (2, 3, 4)]
    assert [v.stride for v in views] == [8, 16, 32] and views[0].centre == 0


# --------------------------------------------------------------------------- KD reads it as its own


@pytest.mark.parametrize('name', ['retinanet', 'fcos', 'yolox'])
def test_kd_of_sigmoid_heads(name):
    pair = detector(name), detector(name, 1)
    own = total(step(KD(tau=2.0), *pair)[0])
    same = total(step(DenseKD(classes='kl', boxes=None, tau=2.0), *pair)[0])
    assert float(own.detach()) == pytest.approx(float(same.detach()), rel=1e-6) and own > 0


@pytest.mark.parametrize(
    ('objective', 'student', 'teacher', 'said'),
    [
        (KD(), 'gfl', 'rtmdet', r'KD needs equal strides: .* \[8, 16, 32\]\.'),
        (KD(), 'gfl', 'fcos', 'KD needs equal priors'),
        (KD('neck'), 'gfl', 'gfl', 'compares the heads; it takes no taps'),
        (KD(reduction='cross_entropy'), 'gfl', 'gfl', r"reduction='cross_entropy' is of a softmax"),
    ],
)
def test_kd_refuses(objective, student, teacher, said):
    with pytest.raises(ValueError, match=said):
        objective.bind(detector(student), detector(teacher))


# ------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (dict(classes='focal'), 'classes must be one of'),
        (dict(boxes='iou'), 'boxes must be one of'),
        (dict(normaliser='mean'), 'normaliser must be one of'),
        (dict(classes=None, boxes=None), 'leave nothing to compare'),
        (dict(classes='adl', gamma=0.5), 'gamma must be a finite number of at least 1'),
        (dict(classes='adl', beta=1.5), 'beta must be a finite number of at most 1'),
        (dict(classes='adl', alpha=2), 'alpha must be a finite number from 0 to 1'),
        (dict(theta=0), 'theta must be a finite number above 0'),
        (dict(tau=0), 'tau must be a finite number above 0'),
        (dict(tau=2.0), 'tau=2.0 has no effect with classes='),
        (dict(gamma=3.0), 'gamma=3.0 has no effect'),
        (dict(theta=1.0), "theta=1.0 has no effect .* normaliser='positives'"),
        (dict(classes='kl', detach_weight=True), 'detach_weight=True has no effect'),
        (dict(factors=dict(boxes=-1)), 'factor boxes'),
        (dict(boxes=None, factors=dict(boxes=1)), 'a key of factors must be one of'),
        (dict(level_map=[(0, 0)]), 'level_map must be one of'),
    ],
)
def test_bad_options(options, said):
    with pytest.raises(ValueError, match=said):
        DenseKD(**options)


class Softmax:
    """A RetinaNet whose classes compete, as SSD's do."""

    def __new__(cls):
        model = detector('retinanet')
        model.bbox_head.use_sigmoid_cls = False
        return model


OTHER = dict(type='AnchorGenerator', octave_base_scale=4, scales_per_octave=3, ratios=[0.5, 1, 2])


@pytest.mark.parametrize(
    ('student', 'teacher', 'options', 'said'),
    [
        (Softmax, Softmax, {}, 'score each class by a sigmoid.*RetinaNet with RetinaHead'),
        (
            lambda: build_model(tiny_yolov3(4)),
            lambda: build_model(tiny_yolov3(4)),
            {},
            'RTMDet and YOLOX do, but .*YOLOV3 with YOLOV3Head',
        ),
        (
            lambda: detector('frcnn'),
            lambda: detector('frcnn'),
            {},
            'softmax classes of RoIs are for KD and DKD',
        ),
        (
            lambda: detector('gfl'),
            lambda: detector('gfl', num_classes=4),
            {},
            'class counts: .* 3 and .* 4',
        ),
        (lambda: detector('gfl'), lambda: detector('rtmdet'), {}, "strides: .*level_map='common'"),
        (lambda: detector('gfl'), lambda: detector('fcos'), {}, 'equal priors: the first of str'),
        (
            lambda: detector('retinanet'),
            lambda: detector(
                'retinanet',
                anchor_generator=dict(OTHER, octave_base_scale=8, strides=[8, 16, 32, 64, 128]),
            ),
            {},
            'equal priors: the first of stride 8',
        ),
        (
            lambda: detector('gfl'),
            lambda: detector('atss'),
            dict(boxes='distribution'),
            "compares bins, which GFL heads have, .*boxes='giou'",
        ),
        (
            lambda: detector('gfl'),
            lambda: detector('gfl', reg_max=8),
            dict(boxes='distribution'),
            'reg_max: .* 16 and .* 8',
        ),
    ],
)
def test_unequal_heads(student, teacher, options, said):
    with pytest.raises(ValueError, match=said):
        DenseKD(**options).bind(student(), teacher())


def test_advice_for_unknown_heads():
    from detection_toys import _teacher

    from mmkd.distiller import Distiller

    pair = [build_model(tiny_yolov3(4)) for _ in range(2)]
    with pytest.raises(ValueError, match='CWD and .* features'):
        Distiller(pair[0], dict(o=DenseKD()), _teacher(pair[1]))


@pytest.mark.parametrize(('kind', 'options'), [('retinanet', {}), ('gfl', dict(boxes=None))])
def test_classes_that_the_teacher_knows(kind, options):
    """A student with one class more: what the teacher says is compared with columns 2 and 0."""
    student, teacher = detector(kind), detector(kind, 1, num_classes=2)
    objective = DenseKD(class_map=[2, 0], **options)
    losses, trace = step(objective, student, teacher)
    own, wanted = heads.answers(trace, objective.pairs)
    z, q = own.logits[..., [2, 0]], wanted.logits.sigmoid()
    apart = (z.sigmoid() - q).abs() * F.binary_cross_entropy_with_logits(z, q, reduction='none')
    found = assignments.assignment(trace)
    value = (apart.sum(-1) * found.weights).sum() / found.positive.sum(1).clamp(min=1).sum()
    torch.testing.assert_close(
        losses['kd.o.loss_classes'].detach(), value.detach(), rtol=1e-4, atol=1e-6
    )
    assert objective.views(trace)
    with pytest.raises(ValueError, match=r'class_map=\[0\] must have one label below 3'):
        DenseKD(class_map=[0]).bind(student, teacher)
