"""BPKD: worked numbers, and the equation written out in float64."""

import math

import pytest
import torch
from segmentation_toys import probe_tensors

from mmkd.distiller import Distiller
from mmkd.functional.edges import class_edges
from mmkd.methods.bpkd import BPKD, body_loss, edge_loss
from mmkd.teacher import Teacher, build_model
from mmkd.testing import label_maps, make_trace, ready, segmentation_batch, tiny_pspnet
from mmkd.unlabelled import listens_without_labels

S, T, Y = probe_tensors()
HALVES = torch.tensor([0, 0, 0, 1, 1, 1]).expand(1, 4, 6)


def near(value):
    return pytest.approx(value, rel=1e-6, abs=6e-8)  # seven decimals are given


def two_columns():
    """Logits of two classes; the teacher's stand out in three of six columns."""
    student, teacher = torch.zeros(2, 1, 2, 4, 6, dtype=torch.float64)
    teacher[0, 0, :, 2], teacher[0, 1, :, 3], teacher[0, 0, :, 0] = 1, 2, 1
    return student, teacher


def test_masks():  # BPK-1
    full = class_edges(HALVES, 2, 1, (4, 6))
    assert full[0].tolist() == [[[0, 0, 1, 1, 0, 0]] * 4] * 2
    assert class_edges(HALVES, 2, 1, (2, 3))[0].tolist() == [[[0, 1, 0]] * 2] * 2


@pytest.mark.parametrize(
    ('tau', 'edge', 'body'), [(1, 0.8775148, 0.0501776), (4, 1.2176559, 0.038653)]
)
def test_two_classes(tau, edge, body):  # BPK-2
    student, teacher = two_columns()
    masks = class_edges(HALVES, 2, 1, (4, 6)).double()
    assert float(edge_loss(student, teacher, masks, tau)) == near(edge)
    assert float(body_loss(student, teacher, masks, tau)) == near(body)
    assert float(edge_loss(student, teacher, masks, tau, alpha=1.0)) == near(edge / 2)


@pytest.mark.parametrize(
    ('tau', 'edge', 'body'), [(1, 1.3556948, 0.0105894), (4, 1.4763182, 0.0105925)]
)
def test_probe(tau, edge, body):  # BPK-3
    masks = class_edges(torch.where(Y == 255, -1, Y), 3, 1, (4, 4)).double()
    assert masks.sum((2, 3)).tolist() == [[15] * 3] * 2
    assert float(edge_loss(S, T, masks, tau)) == near(edge)
    assert float(body_loss(S, T, masks, tau)) == near(body)
    assert float(edge_loss(T, T, masks, tau)) == float(body_loss(T, T, masks, tau)) == 0


def by_hand(student, teacher, masks, tau, normalise):
    """Both terms, class by class and cell by cell."""
    n, k, h, w = student.shape
    edge = body = 0
    for image in range(n):
        for c in range(k):
            total = weight = 0
            for i in range(h):
                for j in range(w):
                    m = masks[image, :, i, j]
                    p, q = ((z[image, :, i, j] * m / tau).softmax(0) for z in (student, teacher))
                    total += m[c] * tau**2 * (q * (q / p).log()).sum()
                    weight += m[c] if normalise == 'sum' else float(m[c] > 0)
            edge += 2.0 / max(1.0, float(weight)) * total / n
            inside = 1 - masks[image, c]
            p, q = ((z[image, c] * inside / tau).flatten().softmax(0) for z in (student, teacher))
            body += tau**2 / k * (q * (q / p).log()).sum() / n
    return edge, body


@pytest.mark.parametrize('normalise', ['sum', 'count'])
def test_equation_with_soft_masks(normalise):
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 2, 3, 4, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (2, 12, 15), generator=generator)
    masks = class_edges(labels, 3, 1, (4, 5)).double()
    assert ((masks > 0) & (masks < 1)).any()
    found = (
        edge_loss(student, teacher, masks, 2.0, normalise=normalise),
        body_loss(student, teacher, masks, 2.0),
    )
    for value, wanted in zip(found, by_hand(student, teacher, masks, 2.0, normalise), strict=True):
        torch.testing.assert_close(value, wanted)


def test_both_normalisers_differ_as_said():
    """With averaged masks the count is larger than the sum, and the term smaller."""
    labels = torch.randint(0, 3, (2, 32, 32), generator=torch.Generator().manual_seed(0))
    labels = labels.repeat_interleave(8, 1).repeat_interleave(8, 2)
    masks = class_edges(labels, 3, 1, (32, 32))
    pair = torch.randn(2, 2, 3, 32, 32)
    ratio = edge_loss(*pair, masks) / edge_loss(*pair, masks, normalise='count')
    assert float(ratio) > 1.2


def on_logits(objective, student, teacher, labels, stride=1):
    models = [build_model(tiny_pspnet(4)) for _ in range(2)]
    objective.bind(*models)
    size = [side * stride for side in student.shape[2:]]
    tap = str(objective.student_taps[0])
    trace = make_trace(
        {tap: student}, {tap: teacher}, label_maps(labels), inputs=torch.zeros(2, 3, *size)
    )
    return ready(objective, trace)(trace)


def test_factors_and_ignored_pixels():
    found = on_logits(BPKD(radius=1), S.float(), T.float(), Y)
    assert float(found['loss_edge']) == pytest.approx(50 * 1.3556948, rel=1e-5)
    assert float(found['loss_body']) == pytest.approx(20 * 0.0105894, rel=1e-5)
    found = on_logits(BPKD(radius=1, factors=dict(edge=1, body=0)), S.float(), T.float(), Y)
    assert float(found['loss_edge']) == pytest.approx(1.3556948, rel=1e-5)
    assert float(found['loss_body']) == 0
    ignored = on_logits(BPKD(), S.float(), T.float(), torch.full_like(Y, 255))
    assert float(ignored['loss_edge']) == 0 and float(ignored['loss_body']) > 0


def test_images_without_labels_teach_by_the_teachers_edges():
    assert not listens_without_labels(BPKD())
    assert listens_without_labels(BPKD(edges='teacher'))


def test_a_class_that_is_absent_counts_nothing():
    masks = class_edges(torch.where(Y == 255, -1, Y), 4, 1, (4, 4))
    assert not masks[:, 3].any()
    wide = [torch.cat((x, 0 * x[:, :1]), 1) for x in (S, T)]
    assert edge_loss(*wide, masks.double()).isfinite()


def test_pictures_show_edges_and_what_differs_there():
    models = [build_model(tiny_pspnet(4)) for _ in range(2)]
    objective = BPKD(radius=1)
    objective.bind(*models)
    tap = str(objective.student_taps[0])
    trace = make_trace(
        {tap: S.float()}, {tap: T.float()}, label_maps(Y), inputs=torch.zeros(2, 3, 4, 4)
    )
    edge, apart = ready(objective, trace).views(trace)
    assert torch.equal(edge.maps, objective.masks(trace, T).amax(1)) and edge.maps.any()
    assert apart.maps.shape == (2, 4, 4) and not apart.maps[edge.maps == 0].any()


def test_edges_of_the_teacher_need_no_labels():
    labels = HALVES.expand(2, -1, -1)
    teacher = torch.nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    student = torch.randn(2, 3, 4, 6)
    nothing = torch.full_like(labels, 255)
    found = on_logits(BPKD(radius=1, edges='teacher'), student, teacher, nothing)
    wanted = on_logits(BPKD(radius=1), student, teacher, labels)
    torch.testing.assert_close(found, wanted)


def test_a_finer_teacher_is_resized():
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 8, 8)
    found = on_logits(BPKD(resize='student'), student, teacher, Y)
    wanted = on_logits(BPKD(), student, torch.nn.functional.avg_pool2d(teacher, 2), Y)
    torch.testing.assert_close(found, wanted)


def test_weight_zero_is_plain_training():
    student, teacher = (build_model(tiny_pspnet(4)) for _ in range(2))
    inputs, samples = segmentation_batch()
    torch.manual_seed(0)
    wanted = student.loss(inputs, samples)
    torch.manual_seed(0)
    distiller = Distiller(student, dict(o=BPKD(weight=0)), Teacher(teacher, 'random'))
    found = distiller(inputs, samples, mode='loss')
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: BPKD(radius=0), 'radius must be a whole number of at least 1'),
        (lambda: BPKD(radius=1.5), 'radius must be a whole number'),
        (lambda: BPKD(tau=0), 'temperature tau must be a finite number above 0'),
        (lambda: BPKD(alpha=math.nan), 'alpha must be a finite number'),
        (lambda: BPKD(normalise='mean'), 'normalise must be one of'),
        (lambda: BPKD(edges='student'), 'edges must be one of'),
        (lambda: BPKD(factors=dict(edge=0, body=0)), 'all terms .* are 0'),
        (lambda: BPKD().bind(*segmentors(3, 4)), 'student has 3 classes and the teacher 4'),
        (lambda: BPKD().bind(*segmentors(1, 1)), 'softmax over one class is always'),
    ],
)
def test_bad_input(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def segmentors(*classes):
    return [build_model(tiny_pspnet(4, k, decode_head=dict(out_channels=k))) for k in classes]


def test_missing_labels():
    model = build_model(tiny_pspnet(4))
    objective = BPKD()
    objective.bind(model, model)
    tap = str(objective.student_taps[0])
    trace = make_trace({tap: torch.randn(2, 3, 4, 4)}, {tap: torch.randn(2, 3, 4, 4)})
    with pytest.raises(ValueError, match='labels are needed.*LoadAnnotations'):
        ready(objective, trace)(trace)
