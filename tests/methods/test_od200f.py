"""OD200F against its numbers, FM-NMS pair by pair, and the sums written out in float64."""

import math

import pytest
import torch
from detection_toys import detector, samples, step, total
from torch.nn import functional as F

from mmkd.methods.od200f import OD200F, activate, distances, fm_nms
from mmkd.teacher import build_model
from mmkd.testing import tiny_yolov3


def yolo(width=4, seed=0, **changes):
    torch.manual_seed(seed)
    model = build_model(tiny_yolov3(width, **changes))
    with torch.no_grad():  # untrained heads hold everything for half an object
        for layer in model.bbox_head.convs_pred:
            layer.weight.mul_(3)
            layer.bias.normal_()
    return model


def suppress(objectness, classes, window):
    """The rule, candidate by candidate: (N, A, H, W) bool."""
    n, a, h, w = objectness.shape
    stay, label = torch.ones(n, a, h, w, dtype=torch.bool), classes.argmax(2)
    places = [(y, x, b) for y in range(h) for x in range(w) for b in range(a)]
    for i in range(n):
        for first, (y, x, b) in enumerate(places):
            own = float(objectness[i, b, y, x])
            for second, (v, u, c) in enumerate(places):
                if second == first or max(abs(v - y), abs(u - x)) > window // 2:
                    continue
                other = float(objectness[i, c, v, u])
                stronger = other > own or (other == own and second < first)
                if stronger and label[i, b, y, x] == label[i, c, v, u]:
                    stay[i, b, y, x] = False
    return stay


# --------------------------------------------------------------------------------------- FM-NMS


def test_the_diagonal_survives():  # OD-1
    o = torch.tensor([[0.9, 0.6, 0.1], [0.2, 0.8, 0.7], [0.1, 0.3, 0.95]])[None, None]
    label = torch.tensor([[0, 0, 1], [1, 1, 0], [0, 0, 0]])
    classes = F.one_hot(label).permute(2, 0, 1)[None, None].float()
    assert torch.equal(fm_nms(o, classes)[0, 0], torch.eye(3).bool())


def random_maps(a=3, k=3, size=(5, 6), levels=0, n=2):
    """Objectness (N, A, H, W) and classes (N, A, K, H, W); few ``levels`` make ties."""
    o = torch.rand(n, a, *size)
    return ((o * levels).round() / levels if levels else o), torch.rand(n, a, k, *size)


@pytest.mark.parametrize('window', [1, 3, 5])
@pytest.mark.parametrize('levels', [0, 3])
def test_pair_by_pair(window, levels):
    torch.manual_seed(window + levels)
    o, classes = random_maps(levels=levels)
    found = fm_nms(o, classes, window)
    assert torch.equal(found, suppress(o, classes, window))
    assert 0 < int(found.sum()) < found.numel()


def test_one_anchor_without_window():  # OD-3
    o, classes = random_maps(a=1)
    assert fm_nms(o, classes, window=1).all()
    o, classes = random_maps(a=3, k=1)
    assert (fm_nms(o, classes, window=1).sum(1) == 1).all()  # anchors of a cell are neighbours


def test_survivors_are_apart_and_stay():  # OD-4, OD-5
    o, classes = random_maps(size=(9, 8))
    stay, label = fm_nms(o, classes), classes.argmax(2)
    for i in (0, 1):
        for k in range(3):
            a, y, x = (stay[i] & (label[i] == k)).nonzero().T
            apart = torch.maximum((y[:, None] - y).abs(), (x[:, None] - x).abs())
            assert (apart + 9 * torch.eye(len(a)) >= 2).all()
    once = o * stay
    assert torch.equal(once[stay], o[stay])
    assert torch.equal(once * fm_nms(once, classes), once)


def test_ties_keep_the_first_cell_then_the_first_anchor():
    o, classes = torch.full((1, 2, 1, 3), 0.5), torch.ones(1, 2, 1, 1, 3)
    assert fm_nms(o, classes).nonzero().tolist() == [[0, 0, 0, 0]]
    classes = torch.stack((classes, 2 * classes * torch.tensor([0, 0, 1])), 2)[:, :, :, 0]
    assert fm_nms(o, classes).nonzero().tolist() == [[0, 0, 0, 0], [0, 0, 0, 2]]


# -------------------------------------------------------------------------------------- distances


def logits(*values):
    """One candidate (1, 1, D, 1, 1): x, y, w, h, objectness and classes, from activated ones."""
    x = torch.tensor(values, dtype=torch.float64)[None, None, :, None, None]
    return torch.cat((x[:, :, :2].logit(), x[:, :, 2:4], x[:, :, 4:].logit()), 2)


def test_numbers_of_one_cell():  # OD-2
    student = logits(0.4, 0.6, 0.1, 0, 0.6, 0.7, 0.3)
    teacher, truth = (
        activate(logits(*v))
        for v in ((0.45, 0.5, 0.1, 0.1, 0.9, 0.8, 0.2), (0.5, 0.5, 0, 0, 1, 1, 0))
    )
    found, own = ({k: float(v) for k, v in distances(student, t).items()} for t in (teacher, truth))
    assert own['objectness'] + found['objectness'] == pytest.approx(0.25)
    assert own['classes'] + 0.9 * found['classes'] == pytest.approx(0.198)
    boxes = own['xy'] + own['wh'] + 0.9 * (found['xy'] + found['wh'])
    assert boxes == pytest.approx(0.05025)


@pytest.mark.parametrize('f', ['l2', 'head'])
def test_gradients_of_distances(f):
    wanted = activate(torch.randn(1, 1, 7, 1, 1, dtype=torch.float64))
    wanted[:, :, 4] = 0  # suppressed
    x = torch.randn(1, 1, 7, 1, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: sum(distances(z, wanted, f).values()).sum(), x)


# --------------------------------------------------------------------------------- real detectors


def literal(trace, f='l2', window=3, obj_thr=0.0, suppress_obj=True, own=None):
    """The sums, candidate by candidate, in float64."""

    def distance(p, q):
        if f == 'l2':
            return (p - q) ** 2
        parts = ((q, p), (1 - q, 1 - p))
        return sum(a * math.log(a / b) for a, b in parts if a > 0)

    stock = dict(xy=2.0, wh=2.0, conf=1.0, cls=1.0)
    own = (own or stock) if f == 'head' else dict.fromkeys(stock, 1.0)
    sums = dict(objectness=0.0, classes=0.0, boxes=0.0)
    taps = zip(
        *(side['bbox_head.forward()'] for side in (trace.student, trace.teacher)), strict=True
    )
    for maps in taps:
        s, t = (activate(x.detach().double().view(2, 2, 8, *x.shape[2:])) for x in maps)
        stay = suppress(t[:, :, 4], t[:, :, 5:], window) & (t[:, :, 4] >= obj_thr)
        for i, a, y, x in torch.ones_like(stay).nonzero().tolist():
            p, q = s[i, a, :, y, x].tolist(), t[i, a, :, y, x].tolist()
            scale = q[4] if stay[i, a, y, x] else 0.0
            wanted = scale if suppress_obj else q[4]
            sums['objectness'] += own['conf'] * distance(p[4], wanted) / 2
            sums['classes'] += scale * own['cls'] * sum(map(distance, p[5:], q[5:])) / 2
            place = sum(map(distance, p[:2], q[:2]))
            side = sum((u - v) ** 2 for u, v in zip(p[2:4], q[2:4], strict=True))
            sums['boxes'] += scale * (own['xy'] * place + own['wh'] * side) / 2
    return sums


@pytest.mark.parametrize(
    'options',
    [
        {},
        dict(f='head'),
        dict(window=1),
        dict(obj_thr=0.6),
        dict(suppress_obj=False),
        dict(f='head', suppress_obj=False, obj_thr=0.5, window=5),
    ],
)
def test_against_the_sums(options):
    student, teacher = yolo(4), yolo(8, 1)
    losses, trace = step(OD200F(**options), student, teacher)
    wanted = literal(trace, **options)
    found = {
        k.removeprefix('kd.o.loss_'): float(v.detach()) for k, v in losses.items() if 'kd' in k
    }
    assert found == pytest.approx(wanted, rel=1e-4)
    assert all(x > 0.01 for x in found.values())
    if options:
        usual = step(OD200F(), student, teacher)[0]
        assert float(total(usual).detach()) != pytest.approx(sum(found.values()), rel=1e-3)
    total(losses).backward()
    reached = student.bbox_head.convs_pred[0].weight, student.backbone.conv1.weight
    assert all(w.grad.abs().sum() > 0 and w.grad.isfinite().all() for w in reached)
    assert all(p.grad is None for p in teacher.parameters())


def test_the_heads_own_weights():
    student, own = yolo(4), dict(xy=0.5, wh=7.0, conf=3.0, cls=0.25)
    for part, weight in own.items():
        getattr(student.bbox_head, f'loss_{part}').loss_weight = weight
    losses, trace = step(OD200F(f='head'), student, yolo(8, 1))
    found = [float(losses[f'kd.o.loss_{k}'].detach()) for k in ('objectness', 'classes', 'boxes')]
    assert found == pytest.approx(list(literal(trace, 'head', own=own).values()), rel=1e-4)
    losses, trace = step(OD200F(), student, yolo(8, 1))  # squares have no weights
    found = [float(losses[f'kd.o.loss_{k}'].detach()) for k in ('objectness', 'classes', 'boxes')]
    assert found == pytest.approx(list(literal(trace).values()), rel=1e-4)


def test_a_teacher_without_objects():  # OD-6
    student, teacher = yolo(4), yolo(8, 1)
    for layer in teacher.bbox_head.convs_pred:
        layer.weight.data.zero_()
        layer.bias.data.view(2, 8)[:, 4] = -200  # sigmoid is 0 in float32
    losses, trace = step(OD200F(), student, teacher)
    assert losses['kd.o.loss_classes'] == 0 and losses['kd.o.loss_boxes'] == 0
    own = [
        x.detach().double().view(2, 2, 8, -1)[:, :, 4] for x in trace.student['bbox_head.forward()']
    ]
    wanted = sum(x.sigmoid().square().sum() for x in own) / 2
    assert float(losses['kd.o.loss_objectness'].detach()) == pytest.approx(float(wanted), rel=1e-4)


@pytest.mark.parametrize('f', ['l2', 'head'])
def test_equal_networks(f):  # OD-7
    student, twin = yolo(4), yolo(4)
    losses, _ = step(OD200F(f=f, suppress_obj=False), student, twin, train=False)
    assert float(total(losses).detach()) == pytest.approx(0, abs=1e-3 if f == 'head' else 1e-6)
    losses, _ = step(OD200F(f=f), student, twin, train=False)
    assert losses['kd.o.loss_objectness'] > 1  # what is suppressed becomes background


def test_ground_truth_does_not_matter():
    student, teacher = yolo(4), yolo(8, 1)
    found = [
        total(step(OD200F(), student, teacher, batch, train=False)[0]).detach()
        for batch in (samples(), samples((0, 1)))
    ]
    assert found[0] > 0 and torch.equal(*found)


def test_a_teacher_that_sees_more_padding():
    teacher = yolo(8, 1)
    teacher.data_preprocessor.pad_size_divisor = 128
    objective = OD200F()
    losses, trace = step(objective, yolo(4), teacher)
    assert trace.teacher.inputs.shape[2:] == (128, 128)
    assert total(losses).isfinite()


def test_views():
    objective = OD200F()
    _, trace = step(objective, yolo(4), yolo(8, 1))
    views, levels = objective.views(trace), objective.candidates(trace)
    assert [view.stride for view in views] == [32, 32, 16, 16, 8, 8]
    for before, after, (_, wanted, stay) in zip(views[::2], views[1::2], levels, strict=True):
        assert before.maps.shape == after.maps.shape == stay[:, 0].shape
        assert torch.equal(before.maps, wanted[:, :, 4].amax(1))
        assert (after.maps <= before.maps).all() and (after.maps[~stay.any(1)] == 0).all()


ANCHORS = dict(type='YOLOAnchorGenerator', strides=[32, 16, 8])
ANCHORS['base_sizes'] = [[(48, 40), (80, 56)], [(20, 32), (30, 24)], [(8, 12), (16, 11)]]


def bound(student, teacher):
    OD200F().bind(student, teacher)


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: OD200F(window=2), 'window must be an odd number of cells, found 2'),
        (lambda: OD200F(window=-1), 'window must be a whole number of at least 0, found -1'),
        (lambda: OD200F(obj_thr=1.5), r'obj_thr must be a finite number from 0 to 1, found 1.5'),
        (lambda: OD200F(obj_thr=-1), 'obj_thr must be a finite number from 0 to 1, found -1'),
        (lambda: OD200F(f='l1'), 'f must be one of'),
        (
            lambda: bound(yolo(), detector('retinanet')),
            'the student is YOLOV3 with YOLOV3Head and the teacher RetinaNet with RetinaHead',
        ),
        (lambda: bound(detector('fcos'), yolo()), "YOLOv3's heads, but the student is FCOS"),
        (lambda: bound(yolo(), yolo(num_classes=4)), 'class counts: .* 3 and .* 4'),
        (
            lambda: bound(yolo(), yolo(bbox_head=dict(anchor_generator=ANCHORS))),
            'OD200F needs equal anchors: at stride 8 those of the student are',
        ),
    ],
)
def test_bad_input(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_an_unlabelled_image():  # OD-8, OD-9
    """Three candidates after FM-NMS; places and sizes both by squares of activated values."""
    o_t = torch.tensor([0.9, 0.8, 0.0], dtype=torch.float64)
    o = torch.full((3,), 0.5, dtype=torch.float64)
    p_t, p = torch.tensor([[0.8, 0.2], [0.3, 0.7], [0, 0]]).double(), torch.full((3, 2), 0.5)
    b_t = torch.tensor([[0.5, 0.5, 0.2, 0.1], [0.4, 0.6, 0, 0], [0, 0, 0, 0]]).double()
    b = torch.tensor([[0.4, 0.5, 0.1, 0], [0.5, 0.5, 0, 0.1], [0.5, 0.5, 1, 1]]).double()
    z = torch.cat((b[:, :2].logit(), b[:, 2:], o[:, None].logit(), p.double().logit()), 1)
    z = z.T[None, None, :, :, None].clone().requires_grad_()  # three cells, one anchor
    wanted = torch.cat((b_t, o_t[:, None], p_t), 1).T[None, None, :, :, None]
    apart = distances(z, wanted)
    scale = wanted[:, :, 4]
    objectness = apart['objectness'].sum()
    classes = (scale * apart['classes']).sum()
    boxes = (scale * (apart['xy'] + apart['wh'])).sum()
    assert float(objectness) == pytest.approx(0.5)
    assert float(classes) == pytest.approx(0.226)
    assert float(boxes) == pytest.approx(0.051)
    assert float(objectness + classes + boxes) == pytest.approx(0.777)
    (objectness + classes + boxes).backward()
    last = z.grad[0, 0, :, 2, 0]
    assert float(last[:4].abs().max()) == float(last[5:].abs().max()) == 0
    assert float(last[4]) == pytest.approx(2 * (0.5 - 0) * 0.25)  # times the slope of the sigmoid


def test_no_suppression():
    o, classes = random_maps()
    assert fm_nms(o, classes, window=0).all()
    student, teacher = yolo(), yolo(8, 1)
    plain, _ = step(OD200F(window=0), student, teacher)
    found, _ = step(OD200F(), student, teacher)
    assert total(plain) > total(found)


def two_scales(**anchors):
    """A student of the strides 32 and 16, whose teacher has 8 as well."""
    config = tiny_yolov3(4)
    config['backbone']['out_indices'] = (2, 3)
    config['neck'].update(num_scales=2, in_channels=[32, 16], out_channels=[8, 8])
    head = config['bbox_head']
    head.update(in_channels=[8, 8], out_channels=[8, 8], featmap_strides=[32, 16])
    sizes = head['anchor_generator']['base_sizes'][:2]
    head['anchor_generator'].update(dict(strides=[32, 16], base_sizes=sizes) | anchors)
    return build_model(config)


def test_a_student_of_two_of_three_scales():
    objective = OD200F()
    losses, trace = step(objective, two_scales(), yolo(8, 1))
    assert objective.pairs == [(0, 0), (1, 1)] and total(losses) > 0
    assert [s.shape[3:] for s, _, _ in objective.candidates(trace)] == [
        t.shape[3:] for _, t, _ in objective.candidates(trace)
    ]
    assert len(objective.views(trace)) == 4


@pytest.mark.parametrize(
    ('anchors', 'message'),
    [
        (dict(strides=[64, 32]), r"has \[64, 32\] and the teacher's \[32, 16, 8\]"),
        (
            dict(base_sizes=[[(48, 40), (80, 56)], [(1, 1), (2, 2)]]),
            r'at stride 16 those of the student are \[\(1, 1\), \(2, 2\)\]',
        ),
    ],
)
def test_other_strides_and_anchors(anchors, message):
    with pytest.raises(ValueError, match=message):
        step(OD200F(), two_scales(**anchors), yolo(8, 1))


def test_images_without_labels_teach_too():
    assert OD200F().label_free
