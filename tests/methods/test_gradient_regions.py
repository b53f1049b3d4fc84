"""GradientRegions: worked numbers, gradients written out, and heads of all kinds."""

import copy

import pytest
import torch
from detection_toys import detector, samples, step

from mmkd.distiller import Distiller
from mmkd.families import confidence
from mmkd.methods.gradient_regions import GradientRegions, region_weights, weighted_distance
from mmkd.teacher import Teacher, build_model
from mmkd.testing import segmentation_batch, tiny_detr, tiny_pspnet, tiny_yolov3

T = torch.tensor([[[1.0, 2], [0, 1]], [[0.0, 1], [2, 0]]], dtype=torch.float64)[None]
ABS, CAM = [[1, 0.7585829], [1, 1]], [[2 / 3, 1], [0, 2 / 3]]


def score(maps):
    return torch.cat([(x[:, 0] - 0.5 * x[:, 1]).sigmoid().flatten(1) for x in maps], 1)


@pytest.mark.parametrize(
    ('kind', 'wanted', 'loss'), [('abs', ABS, 1.3027403), ('cam', CAM, 1.3571429)]
)
def test_worked_numbers(kind, wanted, loss):  # GW-1, GW-2
    (found,) = region_weights([T], score, kind, None)
    torch.testing.assert_close(found[0], torch.tensor(wanted, dtype=T.dtype), rtol=0, atol=1e-7)
    assert float(weighted_distance([(0 * T, T)], [found])) == pytest.approx(loss, rel=2e-7)
    even = torch.ones(1, 2, 2)
    assert float(weighted_distance([(0 * T, T)], [even])) == pytest.approx(1.375)
    assert float(weighted_distance([(T, T)], [found])) == 0
    assert not T.requires_grad and not found.requires_grad


def test_the_best_scores_of_each_image_count():
    """One prior of one level, the best, leaves one cell, whatever the other image does."""
    maps = [torch.randn(2, 2, 3, 4), torch.randn(2, 2, 2, 2)]
    maps[0][0, 0, 1, 2], maps[0][0, 1, 1, 2] = 2, 0
    fine, coarse = region_weights(maps, score, 'abs', 1)
    assert sum(float((x[0] > 0).sum()) for x in (fine, coarse)) == 1
    assert float(max(fine[0].max(), coarse[0].max())) == 1
    together = region_weights([x[:1] for x in maps], score, 'abs', 1)
    torch.testing.assert_close(together[0], fine[:1])


def test_nothing_to_see_weighs_all_cells_alike():
    maps = [torch.randn(1, 2, 2, 3), torch.randn(1, 2, 1, 1)]
    for kind in ('abs', 'cam'):
        found = region_weights(maps, lambda x: 0 * score(x), kind)
        assert all(x.eq(1).all() for x in found)
        unread = region_weights(maps, lambda x: score(x[:1]), kind)  # a level that no head reads
        assert unread[1].eq(0).all()


def test_levels_and_images_are_weighed_as_said():
    pairs = [tuple(torch.randn(2, 2, 3, s, s)) for s in (4, 2)]
    weights = [torch.rand(2, s, s) for s in (4, 2)]
    wanted = 0
    for n in range(2):
        above = below = 0
        for (s, t), m in zip(pairs, weights, strict=True):
            above += (m[n] * (s[n] - t[n]).square()).sum()
            below += 3 * m[n].sum()
        wanted += above / below / 2
    torch.testing.assert_close(weighted_distance(pairs, weights), wanted)


KINDS = ['frcnn', 'retinanet', 'gfl', 'atss', 'fcos']


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('weights', ['abs', 'cam'])
def test_equation_on_detectors(kind, weights):
    """The gradient of the teacher's best scores, by mmdet's own head."""
    student, teacher = detector(kind), detector(kind, 1)
    for name, p in teacher.named_parameters():
        if name.endswith(('rpn_cls.weight', 'retina_cls.weight')):
            p.data.mul_(0.01)  # a score of exactly 1 has no gradient
    losses, trace = step(GradientRegions(weights=weights, top=7), student, teacher)
    maps = [x.detach().requires_grad_() for x in trace.teacher['neck']]
    head = getattr(teacher, 'rpn_head', None) or teacher.bbox_head
    with torch.enable_grad():
        levels = head(tuple(maps))[0]
        classes = 1 if kind == 'frcnn' else 3
        scores = [x.unflatten(1, (-1, classes)).amax(2).sigmoid().flatten(1) for x in levels]
        total = torch.cat(scores, 1).topk(7).values.sum()
    gradients = torch.autograd.grad(total, maps)
    if weights == 'abs':
        found = [g.abs().mean(1) for g in gradients]
    else:
        found = [
            (g.mean((2, 3))[:, :, None, None] * m.detach()).sum(1).relu()
            for g, m in zip(gradients, maps, strict=True)
        ]
    largest = [max(float(x[n].max()) for x in found) for n in range(2)]
    wanted, levels = 0, range(4 if kind == 'frcnn' else 5)
    for n in range(2):
        weigh = [found[k][n] / largest[n] for k in levels]
        apart = [
            (w * (trace.student['neck'][k][n] - trace.teacher['neck'][k][n]).square().mean(0)).sum()
            for k, w in zip(levels, weigh, strict=True)
        ]
        wanted += sum(apart) / sum(w.sum() for w in weigh) / 2
    torch.testing.assert_close(losses['kd.o.loss'], wanted)
    losses['kd.o.loss'].backward()
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert student.backbone.conv1.weight.grad.abs().sum() > 0


def test_nothing_to_learn_from_itself():
    student = detector('retinanet')
    losses, _ = step(GradientRegions(), student, copy.deepcopy(student), train=False)
    assert float(losses['kd.o.loss'].detach()) == pytest.approx(0, abs=1e-9)


def test_weight_zero_is_plain_training():
    inputs, batch, student = torch.randn(2, 3, 96, 128), samples(), detector('retinanet')
    wanted = detector('retinanet').loss(inputs, batch)
    teacher = Teacher(detector('retinanet', 1), 'random')
    distiller = Distiller(student, dict(o=GradientRegions(weight=0)), teacher, preflight=False)
    found = distiller(inputs, batch, mode='loss')
    for name, values in wanted.items():
        assert all(torch.equal(a, b) for a, b in zip(found[name], values, strict=True))


@pytest.mark.parametrize('classes', [3, 1])
def test_segmentors_count_all_pixels(classes):
    changes = dict(decode_head=dict(out_channels=classes, threshold=0.3)) if classes == 1 else {}
    if classes == 1:
        changes['decode_head']['loss_decode'] = dict(use_sigmoid=True)
    student, teacher = (build_model(tiny_pspnet(4, classes, **changes)) for _ in range(2))
    objective = GradientRegions()
    seen = []
    objective.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    distiller = Distiller(student, {'o': objective}, Teacher(teacher, 'random'), preflight=False)
    inputs, samples = segmentation_batch(num_classes=classes)
    losses = distiller(inputs, samples, mode='loss')
    maps = [x.detach().requires_grad_() for x in seen[0].teacher['backbone']]
    with torch.enable_grad():
        logits = teacher.decode_head(maps)
        scores = logits.softmax(1) if classes > 1 else logits.sigmoid()
        total = scores.amax(1).sum()
    grad = torch.autograd.grad(total, maps[-1])[0].abs().mean(1)
    weight = grad / grad.flatten(1).amax(1)[:, None, None]
    pair = [side['backbone'][-1] for side in (seen[0].student, seen[0].teacher)]
    wanted = weighted_distance([pair], [weight])
    torch.testing.assert_close(losses['kd.o.loss'], wanted)


def test_yolo_counts_objectness():
    model = build_model(tiny_yolov3(4)).eval()
    feats = model.extract_feat(torch.randn(1, 3, 64, 64))
    ((coarse, *_),) = model.bbox_head(feats)
    numbers = coarse[0].unflatten(0, (-1, 8)).sigmoid()
    wanted = numbers[:, 4] * numbers[:, 5:].amax(1)
    found = confidence.best_scores(model, feats)
    torch.testing.assert_close(found[0, : wanted.numel()], wanted.flatten())


def test_some_levels_of_the_teacher():
    """Weights are those of the levels that are compared, in their order."""
    student, teacher = detector('retinanet'), detector('retinanet', 1)
    whole, trace = step(GradientRegions(), student, teacher)
    (some := GradientRegions('neck[1:3]')).bind(student, teacher)
    assert [str(tap) for tap in some.teacher_taps] == ['neck[1:3]', 'neck']
    losses, trace = step(GradientRegions('neck[1:3]'), student, teacher)
    feats = [x.detach() for x in trace.teacher['neck']]
    found = region_weights(feats, lambda maps: confidence.best_scores(teacher, maps))
    pairs = [(trace.student['neck'][k], trace.teacher['neck'][k]) for k in (1, 2)]
    torch.testing.assert_close(losses['kd.o.loss'], weighted_distance(pairs, found[1:3]))


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: GradientRegions(weights='grad'), 'weights must be one of'),
        (lambda: GradientRegions(top=0), 'top must be a whole number of at least 1'),
        (
            lambda: GradientRegions('neck').bind(detector('frcnn'), build_model(tiny_detr(4))),
            'DETR',
        ),
        (
            lambda: GradientRegions('neck').bind(detector('frcnn'), build_model(tiny_pspnet(4))),
            'two detectors or two segmentors',
        ),
        (
            lambda: GradientRegions('neck', 'backbone').bind(*[detector('frcnn')] * 2),
            "maps that the teacher's head reads, those at 'neck'.* found backbone",
        ),
    ],
)
def test_bad_input(build, message):
    with pytest.raises(ValueError, match=message):
        build()
