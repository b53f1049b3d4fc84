"""CrossKD against its equations written out in float64, on tiny detectors of each kind."""

import copy
import itertools
import math
import re

import pytest
import torch
from detection_toys import _config, _teacher, detector, samples, settled, step, total
from mmengine.config import Config
from torch import nn
from torch.nn import functional as F

from mmkd.adapters import ConvAdapter
from mmkd.distiller import Distiller
from mmkd.families import towers
from mmkd.functional.sigmoid_distances import gap_weighted_cross_entropy
from mmkd.methods.crosskd import CrossKD, align
from mmkd.rows import predictions
from mmkd.teacher import build_model

KINDS = ['retinanet', 'atss', 'gfl', 'fcos', 'fcos by stride', 'rtmdet', 'yolox']
PARTS = ('cls_convs', 'reg_convs')
#: with towers of each of three levels, two convolutions deep
EACH = ('rtmdet', 'yolox')
#: place of the cut, factors of classes and boxes
DEFAULTS = dict(gfl=(3, 1, 4), fcos=(2, 0.4, 0.75), rtmdet=(1, 1, 1), yolox=(1, 1, 1))


def deep(kind, seed=0, **head):
    """A toy with four convolutions in each tower, as published, or two."""
    options = dict(stacked_convs=2 if kind in EACH else 4)
    options |= dict(norm_on_bbox=True) if kind.endswith('stride') else {}
    model = detector(kind.split()[0], seed, **(options | head))
    return settled(model) if kind in EACH else model


def tower(head, part, level):
    """The convolutions of one level, and their address."""
    if hasattr(head, f'multi_level_{part}'):
        return getattr(head, f'multi_level_{part}')[level], f'multi_level_{part}.{level}'
    if isinstance(getattr(head, part)[0], nn.ModuleList):
        return getattr(head, part)[level], f'{part}.{level}'
    return getattr(head, part), part


def test_aligned_statistics():  # XKD-2
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 5, 7) * 4 + 9, torch.randn(3, 3, 4, 6) - 2
    found, wanted = (torch.std_mean(x, (0, 2, 3)) for x in (align(student, teacher), teacher))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(align(teacher, teacher), teacher, atol=3e-6, rtol=0)
    scale = torch.tensor([2.0, 0.5, 30.0])[:, None, None]
    changed = align(scale * student - 7, teacher)
    torch.testing.assert_close(changed, align(student, teacher), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(align(-student, teacher), align(student, teacher))


def test_one_value_of_each_channel_is_the_teachers():
    student, teacher = torch.randn(1, 4, 1, 1, requires_grad=True), torch.randn(1, 4, 1, 1)
    found = align(student, teacher)
    assert torch.equal(found, teacher)
    assert torch.autograd.grad(found.sum(), student)[0].eq(0).all()


def test_a_channel_that_does_not_vary_has_a_finite_gradient():
    student = torch.ones(2, 1, 2, 2, requires_grad=True)
    found = align(student, torch.randn(2, 1, 2, 2))
    assert torch.autograd.grad(found.square().sum(), student)[0].isfinite().all()


# ------------------------------------------------------------------------- the loss, written out


STRIDES = (8, 16, 32, 64, 128)


def predict(head, level, of_classes, of_boxes):
    """Class logits, box codes and, if there is one, centerness or objectness of one level from the
    ends of both towers."""
    name = type(head).__name__
    if name == 'YOLOXHead':
        boxes, objects = head.multi_level_conv_reg[level], head.multi_level_conv_obj[level]
        return head.multi_level_conv_cls[level](of_classes), boxes(of_boxes), objects(of_boxes)
    if name == 'RTMDetSepBNHead':
        far = head.rtm_reg[level](of_boxes)
        far = far.exp() if head.exp_on_reg else far
        return head.rtm_cls[level](of_classes), far * STRIDES[level], None
    if name == 'RetinaHead':
        return head.retina_cls(of_classes), head.retina_reg(of_boxes), None
    scale = head.scales[level].scale
    if name == 'ATSSHead':
        maps = head.atss_cls(of_classes), scale * head.atss_reg(of_boxes)
        return *maps, head.atss_centerness(of_boxes)
    if name == 'GFLHead':
        return head.gfl_cls(of_classes), scale * head.gfl_reg(of_boxes), None
    distance = scale * head.conv_reg(of_boxes)
    far = distance.clamp(min=0) * head.strides[level] if head.norm_on_bbox else distance.exp()
    return head.conv_cls(of_classes), far, None


def reuse(head, trace, stop, variant, adapters):
    """What the teacher's head (in float64) makes of the student's features, level by level."""
    place = '.activate@in[0]' if variant == 'paper' else ''
    levels = []
    for level in range(head.prior_generator.num_levels):
        ends = []
        for i, part in enumerate(PARTS):
            convs, path = tower(head, part, level)
            tap = f'bbox_head.{path}.{stop - 1}{place}'
            at = 0 if path != part else level
            s, t = (side[tap][at].double() for side in (trace.student, trace.teacher))
            if adapters:
                weight = adapters[f'{i}_{0 if path == part else level}'].conv.weight.double()
                s = torch.einsum('oi,nihw->nohw', weight[:, :, 0, 0], s)
            x = torch.zeros_like(s)
            for c in range(s.shape[1]):
                a, b = s[:, c], t[:, c]
                x[:, c] = (a - a.mean()) / (a.std() + 1e-6) * b.std() + b.mean()
            x = x * x.sigmoid() if path != part else x.clamp(min=0)
            for conv in convs[stop:]:
                x = conv(x)
            ends.append(x)
        levels.append(predict(head, level, *ends))
    return levels


def in_rows(maps, width):
    return torch.cat([m.permute(0, 2, 3, 1).reshape(2, -1, width) for m in maps], 1)


def corners(head, codes, sizes):
    """Boxes (N, P, 4) of deltas or distances."""
    grid = torch.cat(head.prior_generator.grid_priors(sizes, device='cpu')).double()
    name = type(head).__name__
    if name in ('FCOSHead', 'RTMDetSepBNHead'):
        return torch.cat((grid - codes[..., :2], grid + codes[..., 2:]), -1)
    if name == 'YOLOXHead':
        stride = torch.cat(
            [torch.full((h * w, 1), s) for (h, w), s in zip(sizes, STRIDES, strict=False)]
        )
        middle, half = grid + codes[..., :2] * stride, codes[..., 2:].exp() * stride / 2
        return torch.cat((middle - half, middle + half), -1)
    delta = codes * torch.tensor(head.bbox_coder.stds).double()
    side = grid[:, 2:] - grid[:, :2]
    middle = (grid[:, :2] + grid[:, 2:]) / 2 + delta[..., :2] * side
    half = side * delta[..., 2:].clamp(-math.log(1000 / 16), math.log(1000 / 16)).exp() / 2
    return torch.cat((middle - half, middle + half), -1)


def overlap_loss(a, b, generalised):
    def area(x):
        return (x[2] - x[0]) * (x[3] - x[1])

    if not area(b):
        return 0.0
    inner = [max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])]
    inter = area(inner) if inner[2] > inner[0] and inner[3] > inner[1] else 0.0
    union = max(area(a) + area(b) - inter, 1e-6)
    if not generalised:
        return -math.log(max(inter / union, 1e-6))
    hull = max(area([min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])]), 1e-6)
    return 1 - inter / union + (hull - union) / hull


def targets(trace, name):
    """Labels and label weights (N, P), and the normaliser, of the recorded assignment."""
    if name == 'YOLOXHead':  # a mask of each image
        calls = trace.student.raw('bbox_head._get_targets_single()')
        labels = torch.stack([torch.where(call[0], 0, 3) for call in calls])
        return labels, torch.ones_like(labels).double(), sum(max(call[5], 1) for call in calls)
    found = trace.student.raw('bbox_head.get_targets()')[0]
    if name != 'FCOSHead':
        first = 0 if name == 'RetinaHead' else 1
        labels, weights = (torch.cat(x, 1) for x in found[first : first + 2])
        counts = (labels < 3).sum(1)
        count = (
            counts.clamp(min=1).sum() if name == 'RTMDetSepBNHead' else counts.sum().clamp(min=1)
        )
        return labels, weights.double(), int(count)
    labels = torch.cat([x.view(2, -1) for x in found[0]], 1)
    edges = torch.cat([x.view(2, -1, 4) for x in found[1]], 1)
    count = 0.0
    for left, top, right, bottom in edges[labels < 3].tolist():
        ratio = min(left, right) / max(left, right) * min(top, bottom) / max(top, bottom)
        count += math.sqrt(ratio)
    return labels, torch.ones_like(labels).double(), max(count, 1.0)


@torch.no_grad()
def literal(trace, stop, classes, boxes, variant='paper', adapters=None):
    head = copy.deepcopy(trace.teacher.model.bbox_head).double()
    name, levels = type(head).__name__, reuse(head, trace, stop, variant, adapters)
    own, n = [x.double() for x in trace.teacher['bbox_head.forward()']], len(levels)
    sizes = [tuple(x.shape[2:]) for x in own[:n]]
    labels, weights, count = targets(trace, name)
    z, z_t = in_rows([x[0] for x in levels], 3), in_rows(own[:n], 3)
    p, q = z.sigmoid(), z_t.sigmoid()
    if name == 'YOLOXHead':
        p = p * in_rows([x[2] for x in levels], 1).sigmoid()
        q = q * in_rows(own[2 * n :], 1).sigmoid()
        z = p.logit()
    cross = -(q * F.logsigmoid(z) + (1 - q) * F.logsigmoid(-z))
    result = dict(classes=classes * (weights[..., None] * cross * (p - q).abs()).sum() / count)
    u = q.amax(-1) * (weights > 0)
    width = 68 if name == 'GFLHead' else 4
    r, r_t = in_rows([x[1] for x in levels], width), in_rows(own[n : 2 * n], width)
    if name == 'GFLHead':
        log_s, log_t = (x.reshape(2, -1, 4, 17).log_softmax(-1) for x in (r, r_t))
        kl = (log_t.exp() * (log_t - log_s)).sum(-1)
        result['boxes'] = boxes * (u[..., None] * kl / 4).sum() / u.sum().clamp(min=1)
    else:
        pairs = zip(*(corners(head, x, sizes).view(-1, 4).tolist() for x in (r, r_t)), strict=True)
        apart = [overlap_loss(a, b, name != 'FCOSHead') for a, b in pairs]
        result['boxes'] = boxes * (u.flatten() * torch.tensor(apart).double()).sum() / count
    if name == 'ATSSHead':
        c, c_t = (in_rows(x, 1)[..., 0][labels < 3] for x in ([x[2] for x in levels], own[10:]))
        kl = c_t.sigmoid() * (F.logsigmoid(c_t) - F.logsigmoid(c))
        kl += (-c_t).sigmoid() * (F.logsigmoid(-c_t) - F.logsigmoid(-c))
        result['centerness'] = boxes * kl.sum() / count
    return result


def terms(losses):
    return {k.removeprefix('kd.o.loss_'): float(v.detach()) for k, v in losses.items() if 'kd' in k}


def check(found, wanted):
    assert found.keys() == wanted.keys()
    assert all(value > 1e-3 for value in found.values())
    assert found == pytest.approx({k: float(v) for k, v in wanted.items()}, rel=2e-4)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('given', [False, True], ids=['published', 'chosen'])
def test_against_the_equations(kind, given):
    variant = 'paper' if kind in EACH else 'code'
    options = dict(stop=1, factors=dict(classes=0.3, boxes=2.5), variant=variant) if given else {}
    options |= dict(stop=2) if given and kind in EACH else {}
    losses, trace = step(CrossKD(**options), deep(kind), deep(kind, 1))
    published = DEFAULTS.get(kind.split()[0], (3, 1, 1))
    chosen = (options['stop'], 0.3, 2.5, variant) if given else published
    check(terms(losses), literal(trace, *chosen))


@pytest.mark.parametrize('kind', ['gfl', *EACH])
def test_adapters_lead_to_a_wider_head(kind):
    objective = CrossKD()
    losses, trace = step(objective, deep(kind), deep(kind, 1, feat_channels=16))
    count = 6 if kind in EACH else 2
    assert objective.describe()[1] == f'adapters: {count} x 1x1 conv 8 -> 16'
    stop, *factors = DEFAULTS[kind]
    check(terms(losses), literal(trace, stop, *factors, adapters=objective.adapters))
    total(losses).backward()
    assert all(p.grad.abs().sum() > 0 for p in objective.parameters())


def test_an_adapter_that_is_the_identity_changes_nothing():
    student, teacher = deep('yolox'), deep('yolox', 1)
    wanted, _ = step(CrossKD(), student, teacher, train=False)
    objective = CrossKD()
    distiller = Distiller(student, {'o': objective}, _teacher(teacher), preflight=False).eval()
    for place in objective.widths:
        objective.adapters[place] = ConvAdapter(8, 8, bias=False)
        nn.init.dirac_(objective.adapters[place].conv.weight)
    torch.manual_seed(0)
    found = distiller(torch.randn(2, 3, 96, 128), samples(), mode='loss')
    assert terms(found) == terms(wanted)


def wide_neck():
    """A teacher of sixteen channels in front of the head."""
    config = copy.deepcopy(_config('gfl'))
    config.neck.out_channels = config.bbox_head.in_channels = 16
    config.bbox_head.stacked_convs = 4
    return build_model(Config(dict(model=config, default_scope='mmdet')))


def test_maps_of_unequal_width_enter_at_the_head():
    objective = CrossKD(stop=0)
    losses, _ = step(objective, deep('gfl'), wide_neck())
    assert objective.describe()[1] == 'adapters: 1 x 1x1 conv 8 -> 16'
    total(losses).backward()
    assert objective.adapters['0_0'].conv.weight.grad.abs().sum() > 0


@pytest.mark.parametrize('student', [dict(exp_on_reg=False), dict(share_conv=False)])
def test_rtmdets_of_unequal_code(student):
    """RTMDet-s gives raw distances and RTMDet-m logarithms: both boxes are of the teacher's head."""
    own, teacher = deep('rtmdet', 0, **student), deep('rtmdet', 1)
    losses, trace = step(CrossKD(), own, teacher)
    check(terms(losses), literal(trace, 1, 1, 1))


@pytest.mark.parametrize('kind', KINDS)
def test_without_boxes(kind):
    student = deep(kind)
    losses, trace = step(CrossKD(), student, deep(kind, 1), samples((0, 1)))
    _, positive, count = towers.assignment(trace)
    assert not positive.any() and float(count) <= 2  # at least one an image, or none
    total(losses).backward()
    assert total(losses) > 0 and total(losses).isfinite()
    if kind == 'atss':
        assert losses['kd.o.loss_centerness'] == 0
    assert student.backbone.conv1.weight.grad.abs().sum() > 0


@pytest.mark.parametrize('kind', KINDS)
def test_equal_networks(kind):  # XKD-3
    student = deep(kind)
    objective = CrossKD()
    losses, trace = step(objective, student, copy.deepcopy(student), train=False)
    for found, wanted in zip(*objective.answers(trace), strict=True):
        torch.testing.assert_close(found, wanted, atol=2e-5, rtol=2e-4)
    ordinary = total(step(CrossKD(), student, deep(kind, 1), train=False)[0])
    assert float(total(losses).detach()) == pytest.approx(0, abs=1e-4 * float(ordinary.detach()))


@pytest.mark.parametrize(
    ('kind', 'stop'),
    [*itertools.product(['retinanet', 'gfl'], [0, 1, 3, 4]), *itertools.product(EACH, [0, 1, 2])],
)
def test_who_feels_it(kind, stop):  # XKD-4
    norm = dict(norm_cfg=dict(type='BN')) if kind == 'retinanet' else {}
    student, teacher = deep(kind, **norm), deep(kind, 1, **norm)
    if kind == 'rtmdet':  # or a layer is that of every level
        student = deep(kind, share_conv=False)
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    losses, _ = step(CrossKD(stop=stop), student, teacher)
    total(losses).backward()
    felt = {n for n, p in student.named_parameters() if p.grad is not None and p.grad.any()}
    for part in PARTS:
        found = [re.match(rf'bbox_head\.(?:multi_level_)?{part}\.([\d.]+)\.[a-z]', n) for n in felt]
        reached = {match[1] for match in found if match}
        each = [f'{level}.' for level in range(3)] if kind in EACH else ['']
        assert reached == {f'{level}{i}' for level in each for i in range(stop)}, part
    assert not [n for n in felt if re.match(r'bbox_head\.(?!(multi_level_)?(cls|reg)_convs)', n)]
    assert 'neck.lateral_convs.0.conv.weight' in felt and 'backbone.conv1.weight' in felt
    assert all(p.grad is None for p in teacher.parameters())
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())


def test_the_student_runs_once():
    student = deep('gfl')
    calls = []
    student.bbox_head.cls_convs[0].register_forward_hook(lambda *_: calls.append(1))
    losses, trace = step(CrossKD(), student, deep('gfl', 1))
    assert total(losses) > 0
    assert len(calls) == 15  # five levels a mode at build, five in the step


def test_images_in_another_order():
    student, teacher = deep('retinanet').eval(), deep('retinanet', 1)
    distiller = Distiller(student, {'o': CrossKD()}, _teacher(teacher), preflight=False)
    inputs, batch = torch.randn(2, 3, 96, 128), samples()
    both = [
        distiller.eval()(inputs[o], [batch[i] for i in o], mode='loss') for o in ([0, 1], [1, 0])
    ]
    torch.testing.assert_close(*(total(losses).detach() for losses in both))


def test_a_teacher_that_sees_more_padding():
    teacher = deep('gfl', 1)
    teacher.data_preprocessor.pad_size_divisor = 128
    objective = CrossKD()
    losses, trace = step(objective, deep('gfl'), teacher)
    assert trace.teacher.inputs.shape[2:] == (128, 128)
    reused, wanted = objective.answers(trace)
    assert [x.shape for x in reused] == [x.shape for x in wanted]
    assert total(losses).isfinite()


def test_shallow_heads_and_pkd_beside_it():
    objectives = dict(crosskd=dict(type='mmkd.CrossKD'), pkd=dict(type='mmkd.PKD'))
    student = detector('retinanet')  # one convolution
    distiller = Distiller(student, objectives, _teacher(detector('retinanet', 1)), preflight=False)
    assert distiller.objectives['crosskd'].stop == 1
    assert "student features enter the teacher's RetinaHead behind convolution 1" in str(
        distiller.plan
    )
    losses = distiller(torch.randn(2, 3, 96, 128), samples(), mode='loss')
    assert losses['kd.crosskd.loss_classes'] > 0 and losses['kd.pkd.loss'] > 0


@pytest.mark.parametrize('kind', ['retinanet', 'fcos', 'yolox'])
def test_views(kind):
    objective = CrossKD()
    _, trace = step(objective, deep(kind), deep(kind, 1))
    with torch.no_grad():
        views = objective.views(trace)
    reused, wanted = objective.answers(trace)
    sizes = predictions.level_sizes(trace.teacher.model, wanted)
    assert [tuple(view.maps.shape[1:]) for view in views] == list(sizes.values())
    y, x = (int(i) for i in divmod(int(views[0].maps[1].argmax()), views[0].maps.shape[2]))
    model = trace.teacher.model
    levels = (predictions.class_maps(model, maps, [0])[0] for maps in (reused, wanted))
    s, t = (logits[1, ..., y, x].detach() for logits in levels)
    assert float(views[0].maps[1].max()) == pytest.approx(
        float(gap_weighted_cross_entropy(s, t).sum(1).max())
    )


# ------------------------------------------------------------------------------- what is refused

OTHER = dict(type='AnchorGenerator', octave_base_scale=4, scales_per_octave=3, ratios=[0.5, 1, 2])
CODER = dict(type='DeltaXYWHBBoxCoder', target_stds=[0.5, 0.5, 0.3, 0.3])
REFUSED = [
    ('gfl', 'gfl', dict(stacked_convs=3), r'depths: .* \[4, 4\] and .* \[3, 3\]'),
    ('yolox', 'yolox', dict(strides=[8, 16, 64]), r'strides: .* 32\] and .* 64\]'),
    ('rtmdet', 'yolox', {}, 'RTMDet with RTMDetSepBNHead and the teacher YOLOX with YOLOXHead'),
    ('gfl', 'gfl', dict(num_classes=4), 'class counts: .* 3 and .* 4'),
    ('gfl', 'gfl', dict(reg_max=8), 'reg_max: .* 16 and .* 8'),
    ('retinanet', 'retinanet', dict(bbox_coder=CODER), 'box coders: .*DeltaXYWH'),
    (
        'retinanet',
        'retinanet',
        dict(anchor_generator=dict(OTHER, octave_base_scale=8, strides=[8, 16, 32, 64, 128])),
        'equal priors',
    ),
    ('fcos', 'fcos by stride', {}, 'norm_on_bbox: .* False and .* True'),
    ('retinanet', 'atss', {}, 'RetinaNet with RetinaHead and the teacher ATSS with ATSSHead'),
    ('gfl', 'frcnn', dict(stacked_convs=None), 'the teacher FasterRCNN with RPNHead'),
]


@pytest.mark.parametrize(('student', 'teacher', 'changes', 'said'), REFUSED)
def test_unequal_heads(student, teacher, changes, said):
    """One sentence that names both sides."""
    judge = detector('frcnn') if teacher == 'frcnn' else deep(teacher, 1, **changes)
    with pytest.raises(ValueError) as error:
        CrossKD().bind(deep(student), judge)
    message = str(error.value)
    assert re.search(said, message) and message.startswith('CrossKD'), message
    assert 'student' in message and 'teacher' in message and message.endswith('.')
    assert not re.search(r'[.!?] +[A-Z]', message), message


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: CrossKD(stop=-1), 'stop must be a whole number of at least 0'),
        (lambda: CrossKD(variant='never'), 'variant must be one of'),
        (lambda: CrossKD(factors=dict(classes=-1)), 'factor classes must be a finite number'),
        (lambda: CrossKD(factors=dict(boxes=math.nan)), 'factor boxes must be a finite number'),
        (lambda: CrossKD(stop=5).bind(deep('gfl'), deep('gfl')), 'at most 4, or 0, found 5'),
        (lambda: CrossKD(stop=1.5).bind(deep('gfl'), deep('gfl')), 'stop must be a whole number'),
        (
            lambda: CrossKD(variant='code').bind(deep('yolox'), deep('yolox')),
            "in-place ReLU does, but the teacher's head has Swish; set variant='paper'",
        ),
    ],
)
def test_bad_options(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_subclass_with_its_own_targets_is_refused():
    model = deep('gfl')

    class OwnHead(type(model.bbox_head)):
        def get_targets(self, *args, **kwargs):
            return super().get_targets(*args, **kwargs)

    assert towers.tower_kind(model) == 'GFLHead'
    model.bbox_head.__class__ = OwnHead
    assert towers.tower_kind(model) is None
    with pytest.raises(ValueError, match='the student is GFL with OwnHead'):
        CrossKD().bind(model, deep('gfl', 1))
