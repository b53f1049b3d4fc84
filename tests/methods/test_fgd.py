"""FGD against the sheet's numbers and the equations written out box by box, cell by cell."""

from math import ceil, floor

import pytest
import torch
from pyramid_toys import prepare, random_maps, toy, trace_of
from torch import nn

from mmkd.adapters.context import ContextBlock
from mmkd.functional.box_masks import background_mask, foreground_mask
from mmkd.methods.fgd import FGD, PRESETS, TERMS

T = torch.tensor([[[[1.0, 3.0]], [[1.0, 1.0]]]])
S = torch.tensor([[[[1.0, 1.0]], [[1.0, 0.0]]]])


def mask_of(boxes, size=(4, 4), pixels=32.0):
    boxes = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    images = torch.zeros(len(boxes), dtype=torch.long)
    return foreground_mask(boxes, images, torch.tensor([[pixels, pixels]]), size)


def slow_mask(boxes, size, width, height):
    """Eqs. of the paper with plain numbers."""
    h, w = size
    mask = torch.zeros(h, w)
    for x1, y1, x2, y2 in boxes:
        left, right = floor(x1 * w / width), ceil(x2 * w / width)
        top, bottom = floor(y1 * h / height), ceil(y2 * h / height)
        value = 1 / ((right - left + 1) * (bottom - top + 1))
        for y in range(max(top, 0), min(bottom, h - 1) + 1):
            for x in range(max(left, 0), min(right, w - 1) + 1):
                mask[y, x] = max(float(mask[y, x]), value)
    return mask


def test_worked_masks():  # FGD-1
    mask = mask_of([[0, 0, 8, 8], [8, 8, 32, 32]])
    assert (mask[0, :2, :2] == 0.25).all()
    assert float(mask.sum()) == pytest.approx(1.5)
    assert int((mask == 0.0625).sum()) == 8
    background = background_mask(mask)
    assert int((background == 0.25).sum()) == 4 and float(background.sum()) == 1


def test_empty_and_full():  # FGD-2
    mask = mask_of([])
    assert (mask == 0).all() and (background_mask(mask) == 1 / 16).all()
    mask = mask_of([[0, 0, 32, 32]])
    assert float(mask.sum()) == pytest.approx(0.64)
    assert (background_mask(mask) == 0).all()


def test_masks_written_out():
    generator = torch.Generator().manual_seed(0)
    reference = torch.tensor([[96.0, 64.0], [80.0, 50.0], [96.0, 64.0]])
    counts = (40, 0, 5)
    low = torch.rand(45, 2, generator=generator) * 120 - 30  # some corners lie outside
    boxes = torch.cat((low, low + 1 + torch.rand(45, 2, generator=generator) * 40), 1)
    images = torch.arange(3).repeat_interleave(torch.tensor(counts))
    for size in ((8, 12), (5, 3), (1, 1)):
        masks = foreground_mask(boxes, images, reference, size)
        for k in range(3):
            own = boxes[images == k].tolist()
            wanted = slow_mask(own, size, *reference[k].tolist())
            torch.testing.assert_close(masks[k], wanted)


def terms_of(s, t, foreground, tau=0.5):
    objective = FGD(tau=tau)
    objective.bind(toy(), toy())
    contexts = nn.ModuleDict({k: ContextBlock(s.shape[1]) for k in ('student', 'target')})
    terms = objective.level_terms(s, t, foreground, contexts.to(s.dtype))
    return {key: float(value) for key, value in terms.items()}


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_worked_terms(dtype):  # FGD-3
    terms = terms_of(S.to(dtype), T.to(dtype), torch.tensor([[[1.0, 0.0]]], dtype=dtype))
    assert terms['foreground'] == 0
    assert terms['background'] == pytest.approx(12.832828, rel=1e-6)
    assert terms['attention'] == pytest.approx(3.046377, rel=1e-6)
    assert terms['context'] == pytest.approx(5)


def test_zero_at_equality():  # FGD-4
    objective = prepare(FGD(), [8, 8])
    maps = random_maps(2, [8, 8])
    trace = trace_of(objective, maps, maps, [[[3, 5, 40, 60]], []])
    assert all(float(v) == 0 for v in objective(trace).values())
    for block in objective.contexts['0'].values():
        nn.init.normal_(block.transform[-1].weight)
    assert objective(trace)['loss_context'] > 0


def slow_attention(x, tau):
    c, h, w = x.shape
    spatial = torch.exp(x.abs().mean(0) / tau)
    channel = torch.exp(x.abs().mean((1, 2)) / tau)
    return h * w * spatial / spatial.sum(), c * channel / channel.sum()


def slow_context(block, x):
    weight = torch.exp((block.where.weight.double().view(-1, 1, 1) * x).sum(0))
    weight = weight / weight.sum()
    z = torch.stack([(weight * plane).sum() for plane in x])
    one, norm, _, two = block.double().transform
    z = one.weight @ z + one.bias
    z = (z - z.mean()) / (z.var(unbiased=False) + norm.eps).sqrt() * norm.weight + norm.bias
    return x + (two.weight @ z.clamp(min=0) + two.bias)[:, None, None]


def test_equations_written_out():
    objective = prepare(FGD(), [4, 4])
    for pair in objective.contexts.values():
        for block in pair.values():
            nn.init.normal_(block.transform[-1].weight)
    s, t = random_maps(3, [4, 4]), random_maps(3, [4, 4], seed=1)
    boxes = [[[3, 5, 40, 60], [10, 10, 20, 20]], [], [[0, 0, 64, 64]]]
    found = objective(trace_of(objective, s, t, boxes))
    wanted = dict.fromkeys(TERMS, 0.0)
    for k in range(2):
        blocks = objective.contexts[f'{k}']
        for n in range(3):
            x, y = s[k][n].double(), t[k][n].double()
            (a_s, a_c), (t_s, t_c) = slow_attention(x, 0.5), slow_attention(y, 0.5)
            fg = slow_mask(boxes[n], x.shape[1:], 64, 64).double()
            empty = (fg == 0).double()
            error = (t_s * t_c[:, None, None] * (x - y) ** 2).sum(0)
            wanted['foreground'] += float((fg * error).sum()) / 3
            wanted['background'] += float((empty * error).sum() / empty.sum().clamp(min=1)) / 3
            wanted['attention'] += float((a_s - t_s).abs().sum() + (a_c - t_c).abs().sum()) / 3
            sides = (slow_context(blocks[k], m) for k, m in (('student', x), ('target', y)))
            wanted['context'] += float((next(sides) - next(sides)).square().sum().detach()) / 3
    for term, factor in zip(TERMS, PRESETS['two_stage'], strict=False):
        value = float(found[f'loss_{term}'].detach())
        assert value == pytest.approx(factor * wanted[term], rel=1e-5), term


def test_gradients():
    objective = prepare(FGD(), [3], [4])
    s, t = random_maps(2, [3], grad=True), random_maps(2, [4], seed=1, grad=True)
    result = objective(trace_of(objective, s, t, [[[3, 5, 40, 60]], []]))
    own = [torch.autograd.grad(value, s[0], retain_graph=True)[0] for value in result.values()]
    assert all(g.abs().max() > 0 for g in own)
    assert (own[0][1] == 0).all()  # no box in the second image
    sum(result.values()).backward()
    assert t[0].grad is None
    assert all(p.grad is not None for p in objective.parameters())
    last = objective.contexts['0']['target'].transform[-1]
    assert last.weight.grad.abs().max() > 0


def test_no_boxes_and_order_of_images():  # GEN-4, GEN-5
    objective = prepare(FGD(), [4])
    s, t = random_maps(3, [4], grad=True), random_maps(3, [4], seed=1)
    result = objective(trace_of(objective, s, t))
    assert float(result['loss_foreground'].detach()) == 0
    assert result['loss_foreground'].requires_grad and float(result['loss_background'].detach()) > 0
    boxes = [[[3, 5, 40, 60]], [[1, 1, 9, 9]], []]
    before = objective(trace_of(objective, s, t, boxes))
    order = [2, 0, 1]
    moved = [[m[order] for m in maps] for maps in (s, t)]
    after = objective(trace_of(objective, *moved, [boxes[k] for k in order]))
    for key in before:
        torch.testing.assert_close(before[key], after[key])
    # broken boxes take no part
    broken = [[*boxes[0], [9, 9, 9, 20], [9, 9, 5, 20]], boxes[1], []]
    again = objective(trace_of(objective, s, t, broken))
    assert all(torch.equal(before[key], again[key]) for key in before)


def test_coord_ref():
    maps = random_maps(2, [4])
    shapes, boxes = [(64, 64), (32, 48)], [[[0, 0, 16, 16]], [[0, 0, 16, 16]]]
    found = {}
    for reference in ('batch_input', 'img_shape'):
        objective = prepare(FGD(coord_ref=reference), [4])
        trace = trace_of(objective, maps, maps, boxes, shapes=shapes)
        found[reference] = (objective.masks(trace, [(16, 16)])[0] > 0).sum((1, 2)).tolist()
    assert found == {'batch_input': [25, 25], 'img_shape': [25, 9 * 7]}


def detector(kind):
    model = toy('two_stage' if kind == 'two_stage' else 'dense')
    if kind == 'two_stage':
        return model
    head = model.bbox_head
    if kind in ('anchors', 'atss'):
        head.prior_generator = type('Anchors', (), {'base_anchors': ()})()
    if kind == 'yolox':
        head.multi_level_conv_obj = nn.ModuleList()
    if kind in ('fcos', 'atss'):
        head.conv_centerness = nn.Identity()
    if kind == 'detr':
        model.decoder = nn.Identity()
    return model


@pytest.mark.parametrize(
    ('kind', 'preset', 'tap'),
    [
        ('two_stage', 'two_stage', 'neck[0:4]'),
        ('anchors', 'anchors', 'neck'),
        ('atss', 'anchors', 'neck'),
        ('detr', 'anchors', 'neck'),
        ('points', 'points', 'neck'),
        ('fcos', 'fcos', 'neck'),
        ('yolox', 'yolox', 'neck'),
    ],
)
def test_presets(kind, preset, tap):
    objective = FGD()
    objective.bind(detector(kind), detector(kind))
    assert (*objective.factors.values(), objective.tau) == PRESETS[preset]
    assert str(objective.student_taps[0]) == tap
    objective = FGD(preset='yolox', factors=dict(attention=3.0), tau=0.1)
    objective.bind(detector(kind), detector(kind))
    assert (*objective.factors.values(), objective.tau) == (2e-3, 1e-3, 3.0, 1e-5, 0.1)


def test_published_factors():
    assert PRESETS['two_stage'] == (5e-5, 2.5e-5, 5e-5, 5e-7, 0.5)
    assert PRESETS['anchors'] == (1e-3, 5e-4, 5e-4, 5e-6, 0.5)
    assert PRESETS['points'][:4] == PRESETS['fcos'][:4] == (1.6e-3, 8e-4, 8e-4, 8e-6)


def test_factors_and_tau_reach_the_loss():
    s, t = random_maps(2, [4]), random_maps(2, [4], seed=1)
    results = []
    for options in ({}, {'factors': {'context': 1.0}}, {'tau': 5.0}):
        objective = prepare(FGD(**options), [4])
        values = objective(trace_of(objective, s, t, [[[0, 0, 9, 9]], []]))
        results.append([float(v.detach()) for v in values.values()])
    plain, context, flat = results
    assert context == pytest.approx([*plain[:3], plain[3] / 5e-7])
    assert flat[3] == pytest.approx(plain[3])
    assert all(a != pytest.approx(b) for a, b in zip(flat[:3], plain[:3], strict=True))


def test_views():
    objective = prepare(FGD(), [4, 4])
    s, t = random_maps(2, [4, 4]), random_maps(2, [4, 4], seed=1)
    views = objective.views(trace_of(objective, s, t, [[[0, 0, 9, 9]], []]))
    assert [v.title for v in views[:4]] == ['foreground', 'background', 'attention', 'attention']
    assert len(views) == 8


def test_bad_input():
    with pytest.raises(ValueError, match='a key of factors must be one of'):
        FGD(factors=dict(alpha=1.0))
    with pytest.raises(
        ValueError, match='factor context must be a finite number of at least 0, found -1'
    ):
        FGD(factors=dict(context=-1))
    with pytest.raises(ValueError, match='temperature tau must be a finite number above 0'):
        FGD(tau=0)
    with pytest.raises(ValueError, match='coord_ref must be one of'):
        FGD(coord_ref='pad_shape')
    with pytest.raises(ValueError, match='preset must be one of'):
        FGD(preset='retinanet')
    with pytest.raises(ValueError, match='FGD works for .*the student is Module .segmentor.'):
        FGD().bind(toy('segmentor'), toy())


def test_cells_are_exact_where_a_box_ends_at_the_border():
    """150 * 20 / 150 is 20; with the division first it is 20.000002, and its ceiling 21."""
    box = torch.tensor([[30.0, 30.0, 150.0, 150.0]])
    found = foreground_mask(box, torch.tensor([0]), torch.tensor([[150.0, 150.0]]), (20, 20))
    assert float(found.max()) == pytest.approx(1 / 17**2)
