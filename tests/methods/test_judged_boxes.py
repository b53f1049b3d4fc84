"""JudgedBoxes: DETRs teach detectors with anchors, points and RoIs."""

import copy
import functools
from types import SimpleNamespace

import pytest
import torch
from detection_toys import detector, samples, settled, step
from mmdet.structures.bbox import bbox_overlaps
from query_toys import network
from torch.nn import functional as F

from mmkd.distiller import Distiller
from mmkd.families import assignments, queries, query_decoding
from mmkd.methods.judged_boxes import JudgedBoxes, of_rois
from mmkd.plan.recording import record
from mmkd.rows import predictions
from mmkd.scales import Rescale
from mmkd.teacher import Teacher, build_model
from mmkd.testing import tiny_faster_rcnn, tiny_gfl

STUDENTS = [
    'retinanet',
    'atss',
    'gfl',
    'fcos',
    'vfnet',
    'tood',
    'rtmdet',
    'yolox',
    'frcnn',
    'cascade',
]
TEACHERS = ['dab', 'two_stage', 'dino', 'ddq']


@functools.cache
def student_of(name, **changes):
    """Tests share them and train none."""
    model = detector(name, **changes)
    return settled(model) if name in ('rtmdet', 'yolox') else model


AGNOSTIC = dict(roi_head=dict(bbox_head=dict(reg_class_agnostic=True)))


def two_stage(**changes):
    """With sixteen proposals of an image."""
    torch.manual_seed(0)
    model = build_model(tiny_faster_rcnn(4, **changes))
    with torch.no_grad():
        for parameter in model.roi_head.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@functools.cache
def teacher_of(name='dino', **changes):
    return network(name, seed=1, **changes)


def asked(name, count=20, batch=None, teacher='dino', **options):
    student, objective = copy.deepcopy(student_of(name)), JudgedBoxes(queries=count, **options)
    losses, trace = step(objective, student, teacher_of(teacher), batch)
    return objective, losses, trace


def terms(losses):
    return {k.removeprefix('kd.o.'): v for k, v in losses.items() if k.startswith('kd.o.')}


@pytest.mark.parametrize(
    ('student', 'teacher'),
    [*((name, 'dino') for name in STUDENTS), *(('gfl', name) for name in TEACHERS)],
)
def test_every_term_reaches_the_student_alone(student, teacher):
    objective, losses, trace = asked(student, teacher=teacher)
    found = terms(losses)
    assert set(found) == {'loss_classes', 'loss_boxes'}
    for key, value in found.items():
        trace.student.model.zero_grad()
        assert value.isfinite() and float(value.detach()) > 0, key
        value.backward(retain_graph=True)
        grads = [p.grad for p in trace.student.model.backbone.parameters()]
        assert any(g is not None and g.any() for g in grads), key
    assert not any(p.grad is not None for p in trace.teacher.model.parameters())
    assert objective.describe() == ["the teacher's decoder judges the 20 surest places of an image"]


# ------------------------------------------------------------------------- the loss, written out


def judge(trace, places):
    """What the teacher's decoder says of boxes (M, 4) of each of two images."""
    sizes = [torch.tensor([w, h, w, h]).float() for h, w in (s.img_shape for s in trace.samples)]
    shares = [
        torch.stack([torch.minimum(p.clamp(min=0), s) for p in x]) / s
        for x, s in zip(places, sizes, strict=True)
    ]
    points = torch.stack(
        [torch.cat(((x[:, :2] + x[:, 2:]) / 2, x[:, 2:] - x[:, :2]), 1) for x in shares]
    )
    side = trace.teacher
    at = query_decoding.points_at(side, points)
    with torch.no_grad():
        scores, boxes = query_decoding.decode(side.model, queries.memory(side), at)
    probabilities, boxes = scores[-1].sigmoid(), boxes[-1]
    low, high = boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2
    return probabilities, [torch.cat(x, 1) * s for *x, s in zip(low, high, sizes, strict=True)]


def compared(logits, boxes, trace, places):
    """Both losses of logits (M, K) and boxes (M, K, 4), or (M, 1, 4), of each image."""
    probabilities, targets = judge(trace, places)
    classes = apart = total = 0.0
    for z, own, p, wanted in zip(logits, boxes, probabilities, targets, strict=True):
        for j in range(len(z)):
            cross = F.binary_cross_entropy_with_logits(z[j], p[j], reduction='none')
            classes += float((cross * (z[j].sigmoid() - p[j]).abs()).sum())
            sure, best = float(p[j].max()), int(p[j].argmax())
            box = own[j, best if own.shape[1] > 1 else 0]
            overlap = float(bbox_overlaps(box[None], wanted[j][None], mode='giou'))
            apart += sure * (1 - overlap)
            total += sure
    total = max(total, 1.0)
    return dict(loss_classes=classes / total, loss_boxes=4 * apart / total)


@pytest.mark.parametrize('name', ['retinanet', 'gfl', 'fcos', 'yolox'])
def test_a_step_with_priors_is_the_equation_written_out(name):
    _, losses, trace = asked(name, 12)
    model, outputs = trace.student.model, trace.student['bbox_head.forward()']
    with torch.no_grad():
        z, codes = predictions.split(model, outputs)
        sizes = predictions.level_sizes(model, outputs)
        boxes = predictions.decode(model, codes, sizes, None)
    generator = model.bbox_head.prior_generator
    grid = torch.cat(generator.grid_priors(list(sizes.values()), device='cpu'))
    if name in ('fcos', 'yolox'):
        strides = [s[0] for s in generator.strides]
        squares = []
        for (h, w), s in zip(sizes.values(), strides, strict=True):
            for y in range(h):
                for x in range(w):
                    cx, cy = (x + 0.5) * s, (y + 0.5) * s
                    squares.append([cx - 4 * s, cy - 4 * s, cx + 4 * s, cy + 4 * s])
        grid = torch.tensor(squares)
    positive = assignments.assignment(trace).positive
    chosen = []
    for i, sample in enumerate(trace.samples):
        h, w = sample.img_shape
        x, y = (grid[:, 0] + grid[:, 2]) / 2, (grid[:, 1] + grid[:, 3]) / 2
        score = z[i].amax(-1)
        score[(x < 0) | (y < 0) | (x >= w) | (y >= h)] = -1000
        order = sorted(range(len(grid)), key=lambda k: (-int(positive[i, k]), -float(score[k])))
        chosen.append(torch.tensor(order[:12]))
    assert positive.any()
    places = [grid[k] for k in chosen]
    logits, own = ([x[i, k] for i, k in enumerate(chosen)] for x in (z, boxes))
    wanted = compared(logits, [x[:, None] for x in own], trace, places)
    found = {k: float(v.detach()) for k, v in terms(losses).items()}
    assert found == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize(('options', 'count'), [({}, 10), ({}, 30), (AGNOSTIC, 10)])
def test_a_step_with_rois_is_the_equation_written_out(options, count):
    student, objective = two_stage(**options), JudgedBoxes(queries=count)
    losses, trace = step(objective, student, teacher_of())
    head = student.roi_head.bbox_head
    scores, deltas = (x.detach() for x in trace.student['roi_head.bbox_head'])
    rois = trace.student['roi_head.bbox_roi_extractor@in[1]'][0].detach()
    labels = trace.student.raw('roi_head.bbox_head.get_targets()')[0][0]
    logits, boxes, places = [], [], []
    for i in range(2):
        rows = [k for k in range(len(rois)) if rois[k, 0] == i]
        p = scores.double().softmax(-1)[:, :3]
        rows.sort(key=lambda k: (-int(labels[k] < 3), -float(p[k].max())))
        assert len(rows) == 18
        rows = rows[:count]
        places.append(rois[rows, 1:])
        logits.append(torch.logit(p[rows]).float())
        each = [deltas[rows, 4 * k : 4 * k + 4] for k in range(deltas.shape[1] // 4)]
        boxes.append(torch.stack([head.bbox_coder.decode(places[-1], d) for d in each], 1))
    wanted = compared(logits, boxes, trace, places)
    found = {k: float(v.detach()) for k, v in terms(losses).items()}
    assert found == pytest.approx(wanted, rel=1e-3)


# --------------------------------------------------------------------------------- what is asked


def test_a_sampler_that_runs_the_head_itself():
    """OHEM asks the head about all proposals before it samples."""
    sampler = dict(type='OHEMSampler', num=8, pos_fraction=0.25, neg_pos_ub=-1)
    model = tiny_faster_rcnn(4)
    model['train_cfg']['rcnn']['sampler'] = dict(sampler, add_gt_as_proposals=True)
    student, objective = build_model(model), JudgedBoxes(queries=8)
    losses, trace = step(objective, student, teacher_of())
    rois = trace.student['roi_head.bbox_roi_extractor@in[1]']
    assert len(rois) > 1 and len(rois[-1]) == 16
    own = objective.asked(trace)
    assert own.real.all()
    for image in range(2):
        sampled = rois[-1][rois[-1][:, 0] == image, 1:]
        assert sorted(own.places[image].tolist()) == sorted(sampled.tolist())


def test_positives_come_first_and_padding_is_not_asked_about():
    objective, _, trace = asked('gfl', 10**6)
    own = objective.asked(trace)
    count = assignments.assignment(trace).positive.sum(1)
    middle = (own.places[..., :2] + own.places[..., 2:]) / 2
    for i, sample in enumerate(trace.samples):
        h, w = sample.img_shape
        inside = (middle[i] < torch.tensor([w, h])).all(-1)
        assert torch.equal(inside, own.real[i])
        scores = own.logits[i].sigmoid().amax(-1)[int(count[i]) : int(own.real[i].sum())]
        assert 0 < int(count[i]) < len(scores) and (scores.diff() <= 0).all()
    assert not own.real.all()
    assert [objective.asked(trace).logits.shape[1] for objective.queries in (3, 7)] == [3, 7]


def test_an_image_of_few_rois_is_not_asked_more_since_another_has_more():
    """Queries see each other: the teacher's answers at a RoI are those of its image alone."""
    _, trace = step(JudgedBoxes(), two_stage(), teacher_of())
    rois = trace.student['roi_head.bbox_roi_extractor@in[1]'][0]
    few = (rois[:, 0] == 1).nonzero()[:3, 0]
    kept = torch.cat(((rois[:, 0] == 0).nonzero()[:5, 0], few))
    objective, part = JudgedBoxes(queries=5), Few(trace, kept)
    own = objective.asked(part)
    assert own.real.sum(1).tolist() == [5, 3]
    found = objective.judged(part, own.places, own.real)
    for i, count in enumerate((5, 3)):
        p, boxes = judge(trace, own.places[:, :count])
        torch.testing.assert_close(found[0][i, :count].sigmoid(), p[i])
        torch.testing.assert_close(found[1][i, :count], boxes[i], rtol=1e-4, atol=1e-3)


def test_an_image_of_few_rois_has_all_of_them_and_one_of_none_counts_nothing():
    _, trace = step(JudgedBoxes(), two_stage(), teacher_of())
    rois = trace.student['roi_head.bbox_roi_extractor@in[1]'][0]
    kept = (rois[:, 0] == 1).nonzero()[:3, 0]
    own = of_rois(Few(trace, kept), 5)
    assert own.real.tolist() == [[False] * 5, [True, True, True, False, False]]
    assert torch.equal(own.places[1, 3:], own.places[1, :2])
    assert sorted(own.places[1, :3].tolist()) == sorted(rois[kept, 1:].tolist())
    none = of_rois(Few(trace, kept[:0]), 5)
    assert not none.real.any() and none.codes.grad_fn is not None
    model = JudgedBoxes(queries=5)
    for rows in (kept, kept[:0]):
        losses = model(Few(trace, rows))
        assert all(x.isfinite() for x in losses.values())
        assert bool(losses['loss_boxes'].detach() > 0) == bool(len(rows))
        sum(losses.values()).backward(retain_graph=True)


class Few:
    """A trace of which only some RoIs were sampled."""

    def __init__(self, trace, kept):
        self.__dict__.update(
            inputs=trace.inputs, samples=trace.samples, teacher=trace.teacher, scale=trace.scale
        )
        self.student = Sampled(trace.student, kept)


class Sampled:
    def __init__(self, side, kept):
        self.side, self.model, self.kept = side, side.model, kept

    def __getitem__(self, tap):
        return [x[self.kept] for x in self.side[tap]]

    def raw(self, tap):
        return [tuple(x[self.kept] for x in call) for call in self.side.raw(tap)]


@pytest.mark.parametrize('name', ['retinanet', 'yolox', 'frcnn'])
def test_images_without_objects(name):
    for empty in ((0,), (0, 1)):
        _, losses, _ = asked(name, batch=samples(empty))
        assert all(x.isfinite() and float(x.detach()) > 0 for x in terms(losses).values())


@pytest.mark.parametrize('name', ['gfl', 'frcnn'])
def test_one_class(name):
    batch = samples()
    for sample in batch:
        sample.gt_instances.labels.zero_()
    student, teacher = detector(name, num_classes=1), network('dab', seed=1, num_classes=1)
    losses, _ = step(JudgedBoxes(queries=9), student, teacher, batch)
    assert all(x.isfinite() and float(x.detach()) > 0 for x in terms(losses).values())


@pytest.mark.parametrize('make', [tiny_gfl, tiny_faster_rcnn])
def test_a_teacher_on_larger_images(make):
    """A place is the same share of both images, and the student's pixels count."""
    halves = dict(data_preprocessor=dict(batch_augments=[dict(type='mmkd.Rescale', scale=0.5)]))
    torch.manual_seed(0)
    student, objective = build_model(make(4, **halves)), JudgedBoxes(queries=8)
    model = Distiller(student, dict(o=objective), Teacher(teacher_of(), 'random'), preflight=False)
    seen = []
    objective.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    batch = Rescale(0.5)(torch.randn(2, 3, 128, 192), samples(size=(128, 192)))
    losses = terms(model.train()(*batch, mode='loss'))
    assert all(x.isfinite() and float(x.detach()) > 0 for x in losses.values())
    (trace,) = seen
    assert trace.inputs.shape[2:] == (64, 96) and trace.teacher.inputs.shape[2:] == (128, 192)
    places = torch.tensor([[[4.0, 4, 24, 28]], [[5.5, 5.5, 25.5, 29.5]]])
    full = judge(larger(trace, 2), 2 * places)
    wanted, boxes = objective.judged(trace, places, torch.ones(2, 1, dtype=torch.bool))
    torch.testing.assert_close(wanted.sigmoid(), full[0])
    torch.testing.assert_close(2 * boxes, torch.stack(full[1]))


def larger(trace, factor):
    """The trace as the teacher sees it."""
    shapes = [tuple(factor * side for side in s.img_shape) for s in trace.samples]
    return SimpleNamespace(
        teacher=trace.teacher, samples=[SimpleNamespace(img_shape=shape) for shape in shapes]
    )


def test_factors():
    factors = None, dict(classes=0.5, boxes=0)
    found = [terms(asked('gfl', factors=x)[1]) for x in factors]
    found = [{k: v.detach() for k, v in losses.items()} for losses in found]
    assert float(found[1]['loss_classes']) == pytest.approx(float(found[0]['loss_classes']) / 2)
    assert float(found[1]['loss_boxes']) == 0


def test_weight_zero_is_stock_training():
    student, other = (copy.deepcopy(student_of('gfl')) for _ in range(2))
    inputs = torch.randn(2, 3, 96, 128)
    wanted = other.train()(inputs, samples(), mode='loss')
    objectives = dict(o=JudgedBoxes(weight=0))
    model = Distiller(student, objectives, Teacher(teacher_of(), 'random'), preflight=False)
    found = model.train()(inputs, samples(), mode='loss')
    for key, values in wanted.items():
        assert all(
            map(torch.equal, *([x] if torch.is_tensor(x) else x for x in (found[key], values)))
        )


@pytest.mark.parametrize('name', ['gfl', 'frcnn'])
def test_pictures(name):
    objectives = dict(it=JudgedBoxes(queries=12))
    student = two_stage() if name == 'frcnn' else copy.deepcopy(student_of(name))
    model = Distiller(student, objectives, Teacher(teacher_of(), 'random'), preflight=False)
    trace = record(model, torch.randn(2, 3, 96, 128), samples())['it']
    views = model.objectives['it'].views(trace)
    assert [view.side for view in views] == ['student', 'teacher']
    assert all(view.boxes.shape == (20, 5) and (view.scores <= 1).all() for view in views)
    assert views[0].boxes[:, 0].tolist() == [0] * 10 + [1] * 10


# ------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ('student', 'teacher', 'said'),
    [
        ('gfl', 'gfl', 'the teacher GFL with GFLHead; for this pair CrossKD and LD compare pred'),
        ('dino', 'dino', 'the student is DINO with DINOHead'),
        ('dino', 'gfl', 'the teacher GFL with GFLHead; for this pair MatchedDetections compares'),
        ('dino', 'frcnn', 'the teacher FasterRCNN with RPNHead; for this pair JudgedQueries comp'),
        ('gfl', 'detr', 'queries are boxes .DAB-DETR, two-stage .* the teacher DETR with DETRHead'),
        ('gfl', 'deformable', 'the teacher DeformableDETR'),
        ('gfl', 'four', "class counts: the student's head has 3 and the teacher's 4"),
    ],
)
def test_refused(student, teacher, said):
    def model(name, seed):
        if name == 'four':
            return network('dino', seed=seed, num_classes=4)
        return detector(name, seed) if name in STUDENTS else network(name, seed=seed)

    with pytest.raises(ValueError, match=said):
        step(JudgedBoxes(), model(student, 0), model(teacher, 1))


def test_other_boxes_than_deltas_are_refused():
    student = detector('frcnn')
    coder = student.roi_head.bbox_head.bbox_coder
    coder.__class__ = type('BucketingBBoxCoder', (type(coder),), {})
    with pytest.raises(ValueError, match='not what the BucketingBBoxCoder of the .* decodes'):
        step(JudgedBoxes(), student, teacher_of())


@pytest.mark.parametrize('options', [dict(queries=0), dict(factors=dict(giou=1))])
def test_bad_options(options):
    with pytest.raises(ValueError, match='JudgedBoxes'):
        JudgedBoxes(**options)


def test_a_dense_method_on_a_query_head_says_what_fits():
    from mmkd.methods.dense_kd import DenseKD

    with pytest.raises(ValueError, match='for this pair JudgedBoxes compares predictions'):
        step(DenseKD(), detector('gfl'), teacher_of())
