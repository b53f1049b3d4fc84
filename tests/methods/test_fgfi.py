"""FGFI against the numbers of its sheet and a literal transcription of equations 1 to 5."""

import pytest
import torch
from anchor_toys import LIMIT, anchors, many_boxes
from mmengine.structures import InstanceData
from torch import nn

from mmkd.analysis.benchmark import peak_bytes
from mmkd.families import dense
from mmkd.functional.boxes import iou_matrix
from mmkd.methods.fgfi import FGFI, imitation_masks
from mmkd.schedule import Progress
from mmkd.teacher import build_model
from mmkd.testing import boxes, make_trace, ready, tiny_fcos, tiny_retinanet

GT = torch.tensor([[4.0, 4.0, 20.0, 20.0]])
IMAGE = torch.zeros(1, dtype=torch.long)


def grid(cells, stride, side, centre=0.0):
    """(cells^2, 1, 4): one square anchor a cell around (stride * x, stride * y)."""
    line = torch.arange(cells, dtype=torch.float64) * stride + centre
    y, x = (g.flatten() for g in torch.meshgrid(line, line, indexing='ij'))
    return torch.stack((x - side / 2, y - side / 2, x + side / 2, y + side / 2), -1)[:, None]


def mask_of(levels, gt=GT, psi=0.5, **options):
    images = torch.zeros(len(gt), dtype=torch.long)
    return [m[0] for m in imitation_masks(levels, gt, images, 1, psi, **options)]


class Scene(nn.Module):
    """A student of which FGFI sees nothing but its anchors."""

    def __init__(self, strides=(8,), scale=2, ratios=(1.0,)):
        super().__init__()
        from mmdet.models.task_modules.prior_generators import AnchorGenerator

        self.bbox_head = nn.Module()
        self.bbox_head.prior_generator = AnchorGenerator(
            strides=list(strides),
            ratios=list(ratios),
            scales=[scale],
            centers=[(0, 0)] * len(strides),
        )


def objective(scene, student, teacher, samples, **options):
    trace = make_trace({'neck': student}, {'neck': teacher}, samples, student_model=scene)
    fgfi = FGFI(student='neck', **options)
    fgfi.bind(scene, scene)
    return ready(fgfi, trace), trace


def literal(anchors, gts, student, teacher, psi, rule='global', adapters=None):
    """Equations 1 to 5 in loops: anchors per level, boxes per image, maps per level."""
    total, cells = 0.0, 0
    chosen = [torch.zeros(len(gts), len(a), dtype=torch.bool) for a in anchors]
    for n, image in enumerate(gts):
        for g in image.double():
            iou = [
                iou_matrix(g[None], a.reshape(-1, 4).double())[0].view(len(a), -1) for a in anchors
            ]
            best = [float(i.max()) for i in iou]
            for level, i in enumerate(iou):
                top = best[level] if rule == 'per_level' else max(best)
                chosen[level][n] |= (i > psi * top).any(1)
    for level, (s, t) in enumerate(zip(student, teacher, strict=True)):
        s = s if adapters is None else adapters[level](s)
        for n in range(len(gts)):
            for cell in chosen[level][n].nonzero()[:, 0].tolist():
                y, x = divmod(cell, s.shape[3])
                total = total + (s[n, :, y, x] - t[n, :, y, x]).pow(2).sum()
                cells += 1
    return total / (2 * max(cells, 1)), cells


def test_fgfi_1_mask_threshold_and_loss():  # FGFI-1
    anchors = grid(4, 8, 16)
    best = iou_matrix(GT.double(), anchors.view(-1, 4)).max()
    assert float(best) == pytest.approx(0.391304, abs=1e-6)
    assert float(best) / 2 == pytest.approx(0.195652, abs=1e-6)
    mask = mask_of([anchors])[0].view(4, 4)
    wanted = torch.zeros(4, 4, dtype=torch.bool)
    wanted[1:3, 1:3] = True
    assert torch.equal(mask, wanted)

    student, teacher = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)
    teacher[0, 0, 1, 1], teacher[0, 1, 1, 2], teacher[0, 0, 0, 0] = 2, 1, 10
    fgfi, trace = objective(Scene(), [student], [teacher], boxes(GT), adapt=None)
    result = fgfi(trace)
    assert (float(result['loss']), float(result['cells'])) == (0.625, 4)


def test_pixel_offset_counts_sides_inclusively():
    # A threshold between the two: the anchor at one corner is only near with the offset.
    anchors = torch.tensor([[[0.0, 0.0, 9.0, 9.0]], [[9.0, 9.0, 18.0, 18.0]]])
    gt = torch.tensor([[0.0, 0.0, 9.0, 9.0]])
    assert mask_of([anchors], gt, psi=0.0)[0].tolist() == [True, False]
    assert mask_of([anchors], gt, psi=0.0, offset=1.0)[0].tolist() == [True, True]


@pytest.mark.parametrize(('rule', 'cells'), [('global', (4, 0)), ('per_level', (4, 4))])
def test_fgfi_2_level_rules(rule, cells):  # FGFI-2
    fine, coarse = grid(8, 8, 16), grid(2, 32, 64)
    tops = [float(iou_matrix(GT.double(), a.view(-1, 4)).max()) for a in (fine, coarse)]
    assert tops == pytest.approx([0.391304, 0.0625], abs=1e-6)
    masks = mask_of([fine, coarse], level_rule=rule)
    assert tuple(int(m.sum()) for m in masks) == cells


def test_fgfi_3_and_4_psi():  # FGFI-3, FGFI-4
    anchors = grid(8, 8, 16)
    overlap = iou_matrix(GT.double(), anchors.view(-1, 4))[0] > 0
    assert torch.equal(mask_of([anchors], psi=0.0)[0], overlap)
    assert not mask_of([anchors], psi=1.0)[0].any()
    counts = [int(mask_of([anchors], psi=p / 10)[0].sum()) for p in range(11)]
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[5] > counts[10]


def test_fgfi_5_twice_the_same_box_is_that_box():  # FGFI-5
    anchors = grid(8, 8, 16)
    assert torch.equal(mask_of([anchors])[0], mask_of([anchors], GT.repeat(40, 1))[0])


@pytest.mark.parametrize(
    'gt', [[], [[500, 500, 510, 510]], [[8, 8, 8, 20]], [[20, 20, 4, 4]], [[0, 0, float('nan'), 9]]]
)
def test_fgfi_6_nothing_to_imitate_is_zero_with_a_gradient(gt):  # FGFI-6
    student = torch.randn(1, 2, 4, 4, requires_grad=True)
    fgfi, trace = objective(
        Scene(), [student], [torch.ones(1, 2, 4, 4)], boxes(gt), adapt='conv3x3'
    )
    result = fgfi(trace)
    assert float(result['loss']) == 0 and float(result['cells']) == 0
    result['loss'].backward()
    assert torch.equal(student.grad, torch.zeros_like(student))
    assert all(p.grad is not None for p in fgfi.parameters())


def test_fgfi_7_zero_at_equality_and_quadratic():  # FGFI-7
    x, y = torch.randn(2, 1, 3, 8, 8).unbind(0)
    fgfi, trace = objective(Scene(), [x], [x], boxes(GT), adapt=None)
    assert float(fgfi(trace)['loss']) == 0
    losses = []
    for k in (1, 3):
        fgfi, trace = objective(Scene(), [k * x], [k * y], boxes(GT), adapt=None)
        losses.append(float(fgfi(trace)['loss']))
    assert losses[1] == pytest.approx(9 * losses[0], rel=1e-5)


@pytest.mark.parametrize('rule', ['global', 'per_level'])
@pytest.mark.parametrize('psi', [0.2, 0.5, 0.8])
def test_transcription(rule, psi):
    scene = Scene(strides=(8, 16, 32), ratios=(0.5, 1.0, 2.0))
    sizes = [(8, 12), (4, 6), (2, 3)]
    student, teacher = ([torch.randn(2, 3, *size) for size in sizes] for _ in range(2))
    gts = [
        torch.tensor([[4.0, 4.0, 20.0, 20.0], [10.0, 2.0, 70.0, 40.0]]),
        torch.tensor([[0.0, 0.0, 79.0, 47.0], [30.0, 20.0, 34.0, 30.0], [60.0, 30.0, 95.0, 47.0]]),
    ]
    fgfi, trace = objective(
        scene, student, teacher, boxes(*gts), adapt='conv3x3', psi=psi, level_rule=rule
    )
    for adapter in fgfi.adapters.values():  # far from zero, where they start
        nn.init.normal_(adapter.conv.weight, std=0.3)
    generator = scene.bbox_head.prior_generator
    priors = generator.grid_priors(sizes, device='cpu')
    anchors = [a.view(h * w, -1, 4) for a, (h, w) in zip(priors, sizes, strict=True)]
    adapters = [a.double() for a in (fgfi.adapters[f'{k}'] for k in range(3))]
    wanted, cells = literal(
        anchors,
        gts,
        [s.double() for s in student],
        [t.double() for t in teacher],
        psi,
        rule,
        adapters,
    )
    fgfi.float()
    result = fgfi(trace)
    assert float(result['cells']) == cells > 0
    assert float(result['loss']) == pytest.approx(float(wanted), rel=1e-5)


def test_images_of_a_batch_may_be_permuted():
    student, teacher = torch.randn(2, 3, 2, 6, 6).unbind(0)
    gts = [[[4, 4, 20, 20]], [], [[20, 8, 44, 40], [0, 0, 9, 9]]]
    order = [2, 0, 1]
    losses = []
    for permutation in ([0, 1, 2], order):
        samples = boxes(*(gts[i] for i in permutation))
        fgfi, trace = objective(
            Scene(), [student[permutation]], [teacher[permutation]], samples, adapt=None
        )
        losses.append(float(fgfi(trace)['loss']))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_crowds_are_no_objects():
    crowd = boxes([])
    crowd[0].ignored_instances = InstanceData(bboxes=GT, labels=torch.zeros(1).long())
    found = dense.ground_truth(crowd, torch.device('cpu'))
    assert [len(x) for x in found] == [0, 0, 0]


def test_assigner_rule_takes_the_levels_that_the_head_trains_on():
    """Against mmdet's own targets: a level counts for a box if some anchor there is its positive."""
    model = build_model(tiny_retinanet())
    head, gt = model.bbox_head, torch.tensor([[8.0, 8.0, 40.0, 40.0], [0.0, 0.0, 128.0, 120.0]])
    sizes = [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]
    anchors = dense.anchors(model, sizes, [8, 16, 32, 64, 128], torch.device('cpu'))
    labels = torch.tensor([0, 1])
    allowed = dense.assigned_levels(model, anchors, gt, labels)

    flat = torch.cat([a.reshape(-1, 4) for a in anchors])
    instances = InstanceData(bboxes=gt, labels=labels)
    inds = head.assigner.assign(InstanceData(priors=flat), instances).gt_inds
    parts = inds.split([a.shape[0] * a.shape[1] for a in anchors])
    assert allowed.tolist() == [[bool((p == g + 1).any()) for p in parts] for g in range(2)]
    assert allowed.any(1).all() and not allowed.all()

    images = torch.zeros(2, dtype=torch.long)
    masks = imitation_masks(anchors, gt, images, 1, 0.1, 'assigner', allowed)
    everywhere = imitation_masks(anchors, gt, images, 1, 0.1, 'global')
    for level, (mask, whole) in enumerate(zip(masks, everywhere, strict=True)):
        assert bool(mask.any()) <= bool(allowed[:, level].any())
        assert not (mask & ~whole).any()


def test_heads_without_anchors_get_squares():
    model = build_model(tiny_fcos())
    (anchors,) = dense.anchors(model, [(2, 3)], [16], torch.device('cpu'))
    assert anchors.shape == (6, 1, 4)
    assert anchors[4, 0].tolist() == [24 - 64, 24 - 64, 24 + 64, 24 + 64]


def test_adapters_are_as_the_authors_made_them():
    maps = [torch.zeros(1, 2, 4, 4)], [torch.zeros(1, 3, 4, 4)]
    on_neck, _ = objective(Scene(), *maps, boxes(GT))
    conv = on_neck.adapters['0'].conv
    assert conv.kernel_size == (3, 3) and conv.weight.abs().max() <= 2e-4
    assert isinstance(on_neck.adapters['0'].relu, nn.Identity)
    forced, _ = objective(Scene(), *maps, boxes(GT), adapter_relu=True)
    assert isinstance(forced.adapters['0'].relu, nn.ReLU)
    trace = make_trace({'backbone': maps[0]}, {'backbone': maps[1]}, boxes(GT))
    fgfi = FGFI(student='backbone')
    fgfi.bind(Scene(), Scene())
    assert isinstance(ready(fgfi, trace).adapters['0'].relu, nn.ReLU)
    fgfi = FGFI(student='backbone', adapter_relu=False)
    fgfi.bind(Scene(), Scene())
    assert isinstance(ready(fgfi, trace).adapters['0'].relu, nn.Identity)


def test_the_authors_warm_up():
    weight = FGFI(weight=dict(start=400)).weight
    assert [weight(Progress(i, 90_000)) for i in (0, 399, 400, 89_999)] == [0, 0, 0.01, 0.01]


def test_options_change_the_masks_of_a_step():
    model = build_model(tiny_retinanet())
    sizes = [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]
    gt = [[8.0, 8.0, 40.0, 40.0], [0.0, 0.0, 128.0, 120.0]]
    feats = [torch.randn(1, 2, *size) for size in sizes]
    cells = {}
    for name, options in dict(
        plain={}, assigner=dict(level_rule='assigner'), offset=dict(pixel_offset=1)
    ).items():
        trace = make_trace({'neck': feats}, {'neck': feats}, boxes(gt), student_model=model)
        fgfi = FGFI(psi=0.2, **options)
        fgfi.bind(model, model)
        cells[name] = ready(fgfi, trace).masks(trace, sizes)
    pairs = list(zip(cells['assigner'], cells['plain'], strict=True))
    assert all(not (own & ~all_).any() for own, all_ in pairs)
    assert 0 < sum(int(own.sum()) for own, _ in pairs) < sum(int(all_.sum()) for _, all_ in pairs)
    anchors = dense.anchors(model, sizes, [8, 16, 32, 64, 128], torch.device('cpu'))
    wanted = imitation_masks(
        anchors, torch.tensor(gt), torch.zeros(2).long(), 1, 0.2, 'global', offset=1.0
    )
    assert all(torch.equal(a.flatten(1), b) for a, b in zip(cells['offset'], wanted, strict=True))
    assert not all(map(torch.equal, cells['offset'], cells['plain']))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(psi=1.2), r'psi must be a finite number from 0 to 1, found 1.2'),
        (dict(level_rule='nearest'), 'level_rule must be one of'),
        (dict(pixel_offset=2), 'pixel_offset must be one of'),
        (dict(adapt='conv1x1_bn_relu'), 'adapt must be one of'),
        (dict(resize='teacher'), 'resize must be one of'),
        (dict(weight=-1), 'at least 0'),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        FGFI(**options)


def test_a_model_without_dense_head_and_foreign_strides_are_refused():
    with pytest.raises(ValueError, match='needs boxes and a dense detection head'):
        FGFI().bind(nn.Identity(), nn.Identity())
    with pytest.raises(ValueError, match=r'strides \[8\], the head has anchors at \[16\]'):
        objective(Scene((16,)), [torch.zeros(1, 2, 4, 4)], [torch.zeros(1, 2, 4, 4)], boxes(GT))
    with pytest.raises(ValueError, match="'assigner' needs an assigner that uses anchors only"):
        FGFI(level_rule='assigner').bind(*[build_model(tiny_fcos())] * 2)


@pytest.mark.parametrize('level_rule', ['global', 'per_level'])
def test_many_boxes_need_no_matrix_of_all_boxes_and_anchors(level_rule):
    levels = [a.view(-1, 3, 4) for a in anchors([4, 8, 16, 32, 64], [0.5, 1, 2], scales=[8])]
    found, images = many_boxes(200)
    assert peak_bytes(lambda: imitation_masks(levels, found, images, 2, 0.5, level_rule)) < LIMIT
