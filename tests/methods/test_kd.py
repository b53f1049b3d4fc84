"""KD against worked numbers and a literal transcription, on RoIs, pixels and images."""

import math

import pytest
import torch
from detection_toys import detector, halved_step
from segmentation_toys import ToyClassifier, ToySegmentor, prepare, probe_tensors
from torch.nn import functional as F

from mmkd.families import assignments, two_stage
from mmkd.methods.kd import KD, cross_entropy, soft_kl
from mmkd.rows import heads
from mmkd.tap import Recorder, Trace
from mmkd.teacher import build_model
from mmkd.testing import (
    detection_batch,
    label_maps,
    make_trace,
    ready,
    tiny_faster_rcnn,
    tiny_yolov3,
)

S, T, LABELS = probe_tensors()
ZS = torch.tensor([[1, 2, 3], [0.5, -0.5, 0], [0, 1, -1]], dtype=torch.float64)
ZT = torch.tensor([[2, 1, 4], [1, 0, -1], [-1, 3, 0]], dtype=torch.float64)


def literal(student, teacher, tau):
    """Sum over rows of tau^2 * sum_k p_t (log p_t - log p_s), in loops."""
    total = 0.0
    for s, t in zip(student.double().tolist(), teacher.double().tolist(), strict=True):
        p, q = (
            [math.exp(z / tau) / sum(math.exp(x / tau) for x in row) for z in row] for row in (t, s)
        )
        total += tau**2 * sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))
    return total


def rows(x):
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


@pytest.mark.parametrize(
    ('tau', 'wanted'), [(1, 0.1783412), (2, 0.3564464), (4, 0.4445310), (1000, 0.490657)]
)
def test_worked_numbers(tau, wanted):
    assert float(soft_kl(ZS, ZT, tau).mean()) == pytest.approx(wanted, abs=1e-6)
    assert float(soft_kl(ZS, ZT, tau).sum()) == pytest.approx(literal(ZS, ZT, tau))


@pytest.mark.parametrize(
    ('tau', 'wanted', 'floor', 'excess'),
    [(2, 1.087449, 1.020191, 0.067258), (3, 1.189402, 1.062577, 0.126825)],
)
def test_unequal_temperatures_of_snapshot_distillation(tau, wanted, floor, excess):
    z = torch.tensor([[2.0, 1.0, 0.0]], dtype=torch.float64)
    value = float(cross_entropy(z, z, tau, 1.0))
    least = float(cross_entropy(z / tau, z, tau, 1.0))
    assert (value, least, value - least) == pytest.approx((wanted, floor, excess), abs=1.5e-6)


def test_gradient_at_unequal_temperatures():
    z = torch.tensor([[2.0, 1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(cross_entropy(z, z.detach(), 2.0, 1.0).sum(), z)
    assert gradient[0].tolist() == pytest.approx([0.158761, -0.062467, -0.096293], abs=1.5e-6)
    half = (z.detach() / 2).requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(half, z.detach(), 2.0, 1.0).sum(), half)
    assert float(gradient.abs().max()) < 1e-12


def test_cross_entropy_is_the_kl_and_an_entropy():
    kd, ce = KD(tau=2), KD(tau=2, reduction='cross_entropy')
    trace = make_trace(student={'head.fc': [ZS]}, teacher={'head.fc': [ZT]})
    for one in (kd, ce):
        one.kind, one.student_taps, one.teacher_taps = 'images', ['head.fc'], ['head.fc']
    p = (ZT / 2).softmax(1)
    entropy = -(p * p.log()).sum(1).mean()
    gap = float(ce(trace)['loss'] - kd(trace)['loss'] / 4)
    assert gap == pytest.approx(float(entropy), abs=1e-6)


@pytest.mark.parametrize('mask', [False, True])
def test_cross_entropy_of_pixels_counts_those_that_count(mask):
    kd = KD(tau=2, reduction='cross_entropy', student_tau=1, mask_ignore=mask)
    kd.bind(ToySegmentor(), ToySegmentor())
    tap = 'decode_head.conv_seg'
    trace = make_trace({tap: S}, {tap: T}, label_maps(LABELS), stride=1)
    each = cross_entropy(rows(S), rows(T), 2.0, 1.0)
    wanted = each[LABELS.flatten() != 255] if mask else each
    assert float(kd(trace)['loss']) == pytest.approx(float(wanted.mean()), abs=1e-6)


def test_a_temperature_of_the_student_needs_a_cross_entropy():
    with pytest.raises(ValueError, match="reduction='cross_entropy'"):
        KD(student_tau=1)
    with pytest.raises(ValueError, match='temperature student_tau'):
        KD(student_tau=0, reduction='cross_entropy')


def test_infinite_temperature_is_the_distance_of_centred_logits():
    difference = ZS - ZT
    difference = difference - difference.mean(1, keepdim=True)
    limit = difference.square().sum(1).mean() / (2 * 3)
    assert float(limit) == pytest.approx(0.490741, abs=1e-6)
    assert float(soft_kl(ZS, ZT, 1e4).mean()) == pytest.approx(float(limit), rel=1e-4)


def test_gradient_formula_and_shifts():
    s = ZS.clone().requires_grad_()
    soft_kl(s, ZT, 4.0).mean().backward()
    wanted = 4.0 * ((ZS / 4).softmax(1) - (ZT / 4).softmax(1)) / 3
    torch.testing.assert_close(s.grad, wanted)
    shift = torch.tensor([[1.0], [-2.0], [30.0]]).double()
    torch.testing.assert_close(soft_kl(ZS + shift, ZT - shift, 2.0), soft_kl(ZS, ZT, 2.0))
    assert float(soft_kl(ZT + shift, ZT, 2.0).abs().max()) < 1e-12


@pytest.mark.parametrize('gap', [0.0, 200.0, 1e4])
def test_finite_for_any_gap(gap):
    s = torch.tensor([[gap, 0.0], [0.0, 0.0]], requires_grad=True)
    t = torch.tensor([[0.0, gap], [gap, 0.0]])
    loss = soft_kl(s, t, 1.0).sum()
    loss.backward()
    assert loss.isfinite() and s.grad.isfinite().all()


def pixel_loss(student, teacher, labels=None, **options):
    kd = prepare(KD(**options), ToySegmentor(), ToySegmentor())
    samples = None if labels is None else label_maps(labels)
    tap = 'decode_head.conv_seg'
    trace = make_trace({tap: student}, {tap: teacher}, samples, stride=2)
    return kd(trace)['loss']


@pytest.mark.parametrize(
    ('reduction', 'divisor'), [('per_pixel', 32), ('skd_sum', 16), ('element_mean', 96)]
)
@pytest.mark.parametrize('tau', [1, 4])
def test_reductions_of_pixels(reduction, divisor, tau):
    found = pixel_loss(S, T, reduction=reduction, tau=tau)
    assert float(found) == pytest.approx(literal(rows(S), rows(T), tau) / divisor, rel=1e-5)


@pytest.mark.parametrize(
    ('reduction', 'divisor'), [('per_pixel', 30), ('skd_sum', 15), ('element_mean', 90)]
)
def test_ignored_pixels_are_neither_summed_nor_counted(reduction, divisor):
    valid = (LABELS != 255).flatten()
    wanted = literal(rows(S)[valid], rows(T)[valid], 1) / divisor
    found = pixel_loss(S, T, LABELS, reduction=reduction, mask_ignore=True)
    assert float(found) == pytest.approx(wanted, rel=1e-5)
    labels = torch.where(LABELS == 255, 7, LABELS)
    found = pixel_loss(S, T, labels, reduction=reduction, mask_ignore=True, ignore_index=7)
    assert float(found) == pytest.approx(wanted, rel=1e-5)


def test_labels_are_brought_to_the_map_by_nearest_neighbour():
    labels = LABELS.repeat_interleave(2, 1).repeat_interleave(2, 2)
    big = pixel_loss(S, T, labels, mask_ignore=True)
    torch.testing.assert_close(big, pixel_loss(S, T, LABELS, mask_ignore=True))


def test_a_batch_to_be_ignored_is_zero_with_a_gradient():
    s = S.float().requires_grad_()
    loss = pixel_loss(s, T, torch.full_like(LABELS, 255), mask_ignore=True)
    loss.backward()
    assert float(loss) == 0 and not s.grad.any()


@pytest.mark.parametrize(('resize', 'size'), [('student', 4), ('teacher', 8), ('label', 16)])
def test_unequal_maps_take_the_size_asked_for(resize, size):
    big = torch.nn.functional.interpolate(T, scale_factor=2, mode='nearest')
    student, teacher = (
        torch.nn.functional.interpolate(x.float(), (size, size), mode='bilinear') for x in (S, big)
    )
    kd = KD(resize=resize)
    kd.bind(ToySegmentor(), ToySegmentor())
    tap = 'decode_head.conv_seg'
    trace = make_trace({tap: S}, {tap: big}, inputs=torch.zeros(2, 3, 16, 16))
    wanted = literal(rows(student), rows(teacher), 1) / (2 * size * size)
    assert float(kd(trace)['loss']) == pytest.approx(wanted, rel=1e-4)


def test_unequal_maps_are_refused_otherwise():
    kd = KD()
    kd.bind(ToySegmentor(), ToySegmentor())
    tap = 'decode_head.conv_seg'
    trace = make_trace({tap: S}, {tap: torch.zeros(2, 3, 8, 8)})
    with pytest.raises(ValueError, match=r'\(2, 3, 4, 4\) and teacher \(2, 3, 8, 8\). Set resize'):
        kd(trace)


def test_images():
    kd = prepare(KD(), ToyClassifier(), ToyClassifier())
    trace = make_trace({'head.fc': ZS}, {'head.fc': ZT})
    assert kd.tau == 4
    assert float(kd(trace)['loss']) == pytest.approx(0.4445310, rel=1e-5)
    kd.tau = 1
    assert float(ready(kd, trace)(trace)['loss']) == pytest.approx(0.1783412, rel=1e-5)


def test_classes_that_the_teacher_knows():
    """Images and pixels: a softmax over these alone (LwF)."""
    kd = prepare(KD(class_map=[2, 0]), ToyClassifier(), ToyClassifier(2))
    trace = make_trace({'head.fc': ZS}, {'head.fc': ZT[:, :2]})
    wanted = literal(ZS[:, [2, 0]], ZT[:, :2], 4) / 3
    assert float(kd(trace)['loss']) == pytest.approx(wanted, rel=1e-5)
    own, other = S[:, :3], T[:, :2]
    kd = prepare(KD(class_map=[2, 0]), ToySegmentor(num_classes=3), ToySegmentor(num_classes=2))
    trace = make_trace({str(kd.student_taps[0]): own}, {str(kd.teacher_taps[0]): other})
    wanted = literal(rows(own[:, [2, 0]]), rows(other), 1) / len(rows(own))
    assert float(kd(trace)['loss']) == pytest.approx(wanted, rel=1e-5)


def test_classes_that_the_teacher_knows_of_masks():
    """The masks of both are scored first: what a map chooses is a map."""
    models = [ToySegmentor(num_classes=k, queries=4) for k in (3, 2)]
    kd = prepare(KD(class_map=[2, 0]), *models)
    inputs, sides = torch.randn(2, 3, 32, 40), []
    for model, taps in zip(models, (kd.student_taps, kd.teacher_taps), strict=True):
        with Recorder(model, taps).record(inputs) as side:
            model(inputs)
        sides.append(side)
    trace = Trace(inputs, [], *sides)
    own, other = (side['decode_head.forward()@scores'][0] for side in sides)
    wanted = literal(rows(own[:, [2, 0]]), rows(other), 1) / len(rows(own))
    assert float(kd(trace)['loss']) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize('tau', [1, 3])
def test_rois_of_a_teacher_that_knows_less(tau):
    """What it does not know is background to it."""
    student = build_model(tiny_faster_rcnn(4, num_classes=4))
    teacher = build_model(tiny_faster_rcnn(4, num_classes=2)).eval()
    feats = list(teacher.extract_feat(detection_batch()[0]))
    rois = torch.tensor([[0, 4.0, 4, 40, 40], [1, 0, 0, 20, 60]])
    scores = torch.randn(2, 5)
    kd = KD(tau=tau, class_map=[3, 1])
    kd.bind(student, teacher)
    sides = {'roi_head.bbox_head': [scores], 'roi_head.bbox_roi_extractor@in[1]': rois}
    trace = make_trace(sides, {'neck': feats}, inputs=detection_batch()[0], teacher_model=teacher)
    q = (two_stage.roi_outputs(teacher, feats, rois)[0].double() / tau).softmax(1)
    p = (scores.double() / tau).softmax(1)
    p = torch.stack((p[:, 3], p[:, 1], p[:, 0] + p[:, 2] + p[:, 4]), 1)
    wanted = float(tau**2 * (q * (q.log() - p.log())).sum(1).mean())
    assert float(kd(trace)['loss']) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize('tau', [1, 3])
def test_rois_of_the_student_are_judged_by_both(tau):
    teacher = build_model(tiny_faster_rcnn(4)).eval()
    feats = list(teacher.extract_feat(detection_batch()[0]))
    rois = torch.tensor([[0, 4.0, 4, 40, 40], [1, 0, 0, 20, 60], [1, 8, 8, 90, 60]])
    scores = torch.randn(3, 4)
    kd = KD(tau=tau)
    kd.bind(build_model(tiny_faster_rcnn(8)), teacher)
    assert [str(t) for t in kd.student_taps] == [
        'roi_head.bbox_head[0]',
        'roi_head.bbox_roi_extractor@in[1]',
    ]
    student = {'roi_head.bbox_head': [scores, torch.randn(3, 12)]}
    student['roi_head.bbox_roi_extractor@in[1]'] = rois
    trace = make_trace(student, {'neck': feats}, inputs=detection_batch()[0], teacher_model=teacher)
    pooled = teacher.roi_head.bbox_roi_extractor(feats[:4], rois)
    wanted = teacher.roi_head.bbox_head(pooled)[0]
    assert float(kd(trace)['loss']) == pytest.approx(literal(scores, wanted, tau) / 3, rel=1e-4)
    found = two_stage.roi_outputs(teacher, feats, rois)[0]
    torch.testing.assert_close(found, wanted.detach())
    assert not found.requires_grad


def test_no_rois_are_zero_with_a_gradient():
    teacher = build_model(tiny_faster_rcnn(4))
    kd = KD()
    kd.bind(teacher, teacher)
    scores = torch.zeros(0, 4, requires_grad=True)
    student = {
        'roi_head.bbox_head': [scores],
        'roi_head.bbox_roi_extractor@in[1]': torch.zeros(0, 5),
    }
    trace = make_trace(
        student, {'neck': []}, inputs=torch.zeros(1, 3, 32, 32), teacher_model=teacher
    )
    loss = kd(trace)['loss']
    loss.backward()
    assert float(loss) == 0


def test_priors_of_a_teacher_on_larger_images():
    kd = KD(tau=2.0)
    losses, trace = halved_step(kd, detector('gfl'), detector('gfl', 1))
    assert kd.pairs == [(0, 1), (1, 2), (2, 3), (3, 4)]
    z, z_t = (x.logits.detach().double() / 2 for x in heads.answers(trace, kd.pairs))
    ways = [(F.logsigmoid(k * z_t), F.logsigmoid(k * z)) for k in (1, -1)]
    kl = sum(t.exp() * (t - s) for t, s in ways).sum(-1)
    found = assignments.assignment(trace)
    kept = found.weights[:, : kl.shape[1]]  # the coarsest level of the student has no partner
    count = found.positive.sum(1).clamp(min=1).sum()
    wanted = float(4 * (kl * kept).sum() / count)
    assert float(losses['kd.o.loss'].detach()) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize('tau', [0, -2.0, float('nan'), 'hot'])
def test_temperatures_not_above_zero_are_refused(tau):
    with pytest.raises(ValueError, match='temperature tau must be'):
        KD(tau=tau)


@pytest.mark.parametrize(
    ('student', 'teacher', 'message'),
    [
        (lambda: ToySegmentor(num_classes=3), lambda: ToySegmentor(num_classes=4), '3 classes'),
        (lambda: ToySegmentor(num_classes=1), lambda: ToySegmentor(num_classes=1), 'one class'),
        (
            lambda: ToySegmentor(num_classes=2, out_channels=1),
            lambda: ToySegmentor(num_classes=2, out_channels=1),
            'one class',
        ),
        (lambda: ToyClassifier(3), lambda: ToyClassifier(4), '3 classes and the teacher 4'),
        (lambda: ToySegmentor(), lambda: ToyClassifier(), 'scores of one kind'),
        (
            lambda: build_model(tiny_yolov3()),
            lambda: build_model(tiny_yolov3()),
            'softmax class scores .*, or sigmoid ones of one-stage heads, but both are YOLOV3',
        ),
        (
            lambda: build_model(tiny_faster_rcnn()),
            lambda: build_model(tiny_faster_rcnn(num_classes=4)),
            'class counts: .* has 3 and .* 4',
        ),
    ],
)
def test_pairs_that_cannot_work_are_refused_at_build(student, teacher, message):
    with pytest.raises(ValueError, match=message):
        KD().bind(student(), teacher())


def test_maps_of_classes_that_do_not_fit():
    for make in (ToyClassifier, lambda k: build_model(tiny_faster_rcnn(4, num_classes=k))):
        with pytest.raises(ValueError, match=r'class_map=\[0, 1, 2\] must have one label below 3'):
            KD(class_map=[0, 1, 2]).bind(make(3), make(2))


def test_taps_and_sigmoid_scores_on_a_two_stage_detector_are_refused():
    model = build_model(tiny_faster_rcnn())
    with pytest.raises(ValueError, match='takes no taps'):
        KD(student='neck').bind(model, model)
    loss = dict(type='CrossEntropyLoss', use_sigmoid=True)
    sigmoid = build_model(tiny_faster_rcnn(roi_head=dict(bbox_head=dict(loss_cls=loss))))
    with pytest.raises(ValueError, match='has softmax and .* sigmoid'):
        KD().bind(model, sigmoid)
    for options in (dict(reduction='sum'), dict(resize='big')):
        with pytest.raises(ValueError, match='must be one of'):
            KD(**options)
