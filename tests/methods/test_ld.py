"""LD against the sheet's numbers, the sums written out, and tiny GFL detectors."""

import copy

import pytest
import torch
from anchor_toys import LIMIT, anchors, many_boxes
from detection_toys import _teacher, detector, padded_apart, samples, step, total

from mmkd.analysis.benchmark import peak_bytes
from mmkd.distiller import Distiller
from mmkd.families import dense
from mmkd.methods.ld import LD, atss_threshold, mean_kl, overlaps, valuable_region
from mmkd.rows import predictions

ZT, ZS = torch.tensor([2.0, 1, 0]).double(), torch.tensor([0.0, 1, 2]).double()


def test_kl_numbers():  # LD-1
    assert float(mean_kl(ZS, ZT, 1.0)) == pytest.approx(0.383474, abs=1e-6)
    assert float(mean_kl(ZS, ZT, 1.0)) * 3 == pytest.approx(1.150421, abs=1e-6)
    assert float(mean_kl(ZS, ZT, 10.0)) == pytest.approx(0.443705, abs=1e-6)
    assert torch.autograd.gradcheck(lambda z: mean_kl(z, ZT, 3.0), ZS.clone().requires_grad_())


def test_overlaps():  # LD-3
    pair = torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([[4.0, 0, 12, 8]])
    iou, diou = overlaps(*pair)
    assert (float(iou), float(diou)) == pytest.approx((1 / 3, 0.256410), abs=1e-6)
    assert float(overlaps(*pair, variant='code')[1]) == pytest.approx(0.423077, abs=1e-6)


def grid(size, stride):
    y, x = torch.meshgrid(*[torch.arange(size) * float(stride)] * 2, indexing='ij')
    center = torch.stack((x, y), -1).view(-1, 2)
    return torch.cat((center - 4 * stride, center + 4 * stride), 1)


def box_iou(a, b):
    inter = 1.0
    for d in (0, 1):
        inter *= max(min(a[d + 2], b[d + 2]) - max(a[d], b[d]), 0)
    area = sum((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b))
    return inter / (area - inter)


@pytest.mark.parametrize('variant', ['paper', 'code'])
def test_region_anchor_by_anchor(variant):
    anchors = [grid(8, 8), grid(4, 16), grid(1, 64)]
    boxes = torch.tensor([[5.0, 3, 60, 50], [20, 10, 30, 22], [0, 0, 40, 64]])
    images = torch.tensor([1, 1, 0])
    used = torch.ones(2, 81, dtype=torch.bool)
    used[1, 56:64] = used[1, 76:80] = False  # the last rows of the second image are padding
    found = valuable_region(anchors, boxes, images, used, 0.25, variant)
    wanted = torch.zeros(2, 81)
    flat = torch.cat(anchors).tolist()
    for g, box in enumerate(boxes.tolist()):
        ious = torch.tensor([box_iou(box, a) for a in flat])
        apart = torch.tensor(
            [sum(((box[d] + box[d + 2] - a[d] - a[d + 2]) / 2) ** 2 for d in (0, 1)) for a in flat]
        )
        near, first = [], 0
        for level in anchors:
            own = slice(first, first + len(level))
            there = used[images[g], own]
            near.append(ious[own][there][apart[own][there].argsort(stable=True)[:9]])
            first += len(level)
        top = torch.cat(near).mean() + torch.cat(near).std()
        torch.testing.assert_close(
            atss_threshold(
                ious[None], boxes[g : g + 1], torch.cat(anchors), [64, 16, 1], used[images[g], None]
            )[0],
            top,
        )
        for i, a in enumerate(flat):
            hull = sum((max(box[d + 2], a[d + 2]) - min(box[d], a[d])) ** 2 for d in (0, 1))
            overlap = ious[i]
            if variant == 'code':
                union = ious[i] + 0
                area = (a[2] - a[0]) * (a[3] - a[1]) + (box[2] - box[0]) * (box[3] - box[1])
                inter = union * area / (1 + union)
                overlap = inter / ((a[2] - a[0]) * (a[3] - a[1]))
            diou = overlap - apart[i] / hull
            if used[images[g], i] and 0.25 * top <= diou < top:
                wanted[images[g], i] = max(float(wanted[images[g], i]), float(ious[i]))
    torch.testing.assert_close(found, wanted)
    assert 0 < int((found > 0).sum()) < 162


def test_few_anchors_and_no_boxes():
    one, used = torch.tensor([[0.0, 0, 8, 8]]), torch.ones(3, 1, dtype=torch.bool)
    for there in (used, ~used):
        assert valuable_region([one], one, torch.tensor([0]), there).isfinite().all()
    assert (valuable_region([one], one[:0], torch.zeros(0).long(), used) == torch.zeros(3, 1)).all()
    used = torch.ones(1, 40, dtype=torch.bool)
    many = one + torch.arange(40)[:, None]  # more than one chunk
    halves = [
        valuable_region([many], many[p], torch.zeros(20).long(), used)
        for p in (slice(20), slice(20, 40))
    ]
    both = valuable_region([many], many, torch.zeros(40).long(), used)
    torch.testing.assert_close(both, torch.maximum(*halves))


def test_gfl():
    student, teacher = detector('gfl'), detector('gfl', 1)
    objective = LD(factors=dict(main=0.5, valuable=0.7, classes=3), tau=5, tau_class=4, gamma=0.1)
    losses, trace = step(objective, student, teacher)
    (zs, rs), (zt, rt) = predictions.answers(trace)
    _, labels, used, *_ = dense.targets(trace)
    positive, valuable, level = objective.regions(trace)
    assert positive.sum() == sum(int((x < 3).sum()) for x in labels) and valuable.sum() > 0
    main = region = classes = 0.0
    for n, p in positive.nonzero().tolist():
        own = zs[n, p].sigmoid().max()
        main += sum(
            own * mean_kl(rs[n, p, e : e + 17], rt[n, p, e : e + 17], 5) for e in (0, 17, 34, 51)
        )
        each = int((positive & (level == level[p])).sum())
        classes += mean_kl(zs[n, p], zt[n, p], 4) / each
    for n, p in valuable.nonzero().tolist():
        kl = sum(mean_kl(rs[n, p, e : e + 17], rt[n, p, e : e + 17], 5) for e in (0, 17, 34, 51))
        region += valuable[n, p] * kl
    torch.testing.assert_close(losses['kd.o.loss_main'], 0.5 / 4 * main)
    torch.testing.assert_close(losses['kd.o.loss_valuable'], 0.7 / 16 * region)
    torch.testing.assert_close(losses['kd.o.loss_classes'], 3 * classes)
    losses['kd.o.loss_main'].backward()
    assert student.bbox_head.gfl_reg.weight.grad.abs().sum() > 0
    assert student.bbox_head.gfl_cls.weight.grad is None  # the weight is detached
    assert len(objective.views(trace)) == 10
    assert all(p.grad is None for p in teacher.parameters())


def test_same_network_and_no_boxes():  # LD-2
    student = detector('gfl')
    losses, _ = step(LD(), student, copy.deepcopy(student), train=False)
    assert float(total(losses).detach()) == pytest.approx(0, abs=1e-4)
    losses, _ = step(LD(variant='code'), student, detector('gfl', 1), samples((0, 1)))
    total(losses).backward()
    assert total(losses) == 0 and student.bbox_head.gfl_reg.weight.grad is not None


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: LD(factors=dict(main=-1)), 'factor main must be a finite number of at least 0'),
        (lambda: LD(gamma=2), r'gamma must be a finite number from 0 to 1'),
        (lambda: LD(tau=0), 'tau must be a finite number above 0'),
        (lambda: LD(variant='iou'), 'variant must be one of'),
        (
            lambda: LD().bind(detector('gfl'), detector('atss')),
            'the teacher ATSS with ATSSHead',
        ),
        (
            lambda: LD().bind(detector('gfl'), detector('gfl', reg_max=8)),
            'reg_max: .* has 16 and .* 8',
        ),
        (lambda: LD().bind(detector('gfl'), detector('gfl', num_classes=4)), 'class counts'),
    ],
)
def test_bad_input(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_regions_are_those_of_each_image():
    """A batch that begins with the smaller image has the regions of both images alone."""
    student = detector('gfl').eval()
    objective = LD()
    distiller = Distiller(student, dict(o=objective), _teacher(detector('gfl', 1)), preflight=False)
    seen = []
    objective.register_forward_pre_hook(lambda _, args: seen.append(objective.regions(args[0])[1]))
    inputs, batch = padded_apart((1, 0))
    for chosen in ([0, 1], [0], [1]):
        distiller.eval()(inputs[chosen], [batch[i] for i in chosen], mode='loss')
    both, *single = seen
    assert (both > 0).sum(1).min() > 0
    torch.testing.assert_close(both, torch.cat(single))


def test_many_boxes_need_no_matrix_of_all_boxes_and_anchors():
    levels = anchors([8, 16, 32, 64, 128], [1.0], octave_base_scale=8, scales_per_octave=1)
    found, images = many_boxes(200)
    used = torch.ones(2, sum(map(len, levels)), dtype=torch.bool)
    assert peak_bytes(lambda: valuable_region(levels, found, images, used)) < LIMIT
