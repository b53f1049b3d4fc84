"""MGD against worked numbers and the equation written out."""

import pytest
import torch
from pyramid_toys import levels, prepare, random_maps, toy, trace_of
from segmentation_toys import ToySegmentor, make_step, probe_tensors
from segmentation_toys import prepare as prepare_for
from torch import nn
from torch.nn import functional as F

from mmkd.levels import Level
from mmkd.methods.mgd import MGD, draw_mask


def loss_of(objective, s, t, **step):
    return objective(trace_of(objective, s, t, **step))['loss']


def test_ratio():  # MGD-2
    for ratio in (0.65, 0.45):
        mask = draw_mask((1, 1, 400, 400), ratio, torch.Generator().manual_seed(3))
        assert set(mask.unique().tolist()) == {0.0, 1.0}
        assert float(1 - mask.mean()) == pytest.approx(ratio, abs=0.01)
    generator = torch.Generator()
    assert draw_mask((1, 1, 50, 50), 0.0, generator).all()
    assert not draw_mask((1, 1, 50, 50), 1.0, generator).any()


def test_all_hidden_leaves_biases():  # MGD-1
    objective = prepare(MGD(mask_ratio=1.0), [3])
    t = random_maps(2, [3], seed=1)
    s = [random_maps(2, [3], seed=seed, grad=True) for seed in (2, 3)]
    assert torch.equal(loss_of(objective, s[0], t), loss_of(objective, s[1], t))
    loss_of(objective, s[0], t).backward()
    assert s[0][0].grad.abs().max() == 0


def test_identity_generator():  # MGD-3
    s, t, _ = probe_tensors()
    objective = prepare(MGD(mask_ratio=0.0), [3])
    assert loss_of(objective, [s], [s]) > 0
    objective.generators['0'] = nn.Identity()
    assert float(loss_of(objective, [s], [t])) == pytest.approx(38.7244444, rel=1e-6)
    assert float(loss_of(objective, [s], [s])) == 0


@pytest.mark.parametrize('mask', ['spatial', 'channel'])
def test_equation_written_out(mask):
    objective = prepare(MGD(mask=mask), [3, 3], [4, 4])
    s, t = random_maps(2, [3, 3]), random_maps(2, [4, 4], seed=1)
    trace = trace_of(objective, s, t, iteration=5)
    masks = objective.masks(trace, objective.tensor_pairs(trace))
    shapes = {'spatial': [(2, 1, 16, 16), (2, 1, 8, 8)], 'channel': [(2, 4, 1, 1)] * 2}
    assert [tuple(m.shape) for m in masks] == shapes[mask]
    total = 0.0
    for k in range(2):
        g, phi = objective.generators[f'{k}'], objective.adapters[f'{k}'].conv
        x = F.conv2d(s[k].double(), phi.weight.double(), phi.bias.double()) * masks[k].double()
        x = F.conv2d(x, g[0].weight.double(), g[0].bias.double(), padding=1).clamp(min=0)
        x = F.conv2d(x, g[2].weight.double(), g[2].bias.double(), padding=1)
        total += float(((x - t[k].double()) ** 2).sum() / 2)
    assert float(objective(trace)['loss']) == pytest.approx(total, rel=1e-5)


def test_private_random_stream(monkeypatch):  # MGD-4
    s, t = random_maps(2, [3]), random_maps(2, [3], seed=1)
    objective = prepare(MGD(), [3])
    state = torch.get_rng_state()
    first = float(loss_of(objective, s, t, iteration=7))
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert float(loss_of(objective, s, t, iteration=7)) == first
    assert float(loss_of(objective, s, t, iteration=8)) != first
    objective.seed = 1
    assert float(loss_of(objective, s, t, iteration=7)) != first
    objective.seed = 0
    monkeypatch.setattr('mmkd.generators.get_rank', lambda: 1)
    assert float(loss_of(objective, s, t, iteration=7)) != first


def test_levels_and_places_differ():
    objective = prepare(MGD(mask_ratio=0.5), [3, 3])
    maps = [torch.ones(2, 3, 16, 16)] * 2
    trace = trace_of(objective, maps, maps)
    one, two = objective.masks(trace, objective.tensor_pairs(trace))
    assert not torch.equal(one, two) and not torch.equal(one[0], one[1])


def test_gradients():
    objective = prepare(MGD(), [3], [4])
    s, t = random_maps(2, [3], grad=True), random_maps(2, [4], seed=1, grad=True)
    loss_of(objective, s, t).backward()
    assert s[0].grad.abs().max() > 0 and t[0].grad is None
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in objective.parameters())


@pytest.mark.parametrize(
    ('family', 'weight', 'ratio', 'tap'),
    [
        ('two_stage', 5e-7, 0.45, 'neck[0:4]'),
        ('dense', 2e-5, 0.65, 'neck'),
        ('segmentor', 2e-5, 0.75, 'backbone[-1]'),
    ],
)
def test_family_defaults(family, weight, ratio, tap):
    objective = MGD()
    objective.bind(toy(family), toy(family))
    assert (objective.weight.value, objective.mask_ratio) == (weight, ratio)
    assert str(objective.student_taps[0]) == str(objective.teacher_taps[0]) == tap
    objective = MGD(weight=1.0, mask_ratio=0.0, student='backbone')
    objective.bind(toy(family), toy(family))
    assert (objective.weight.value, objective.mask_ratio) == (1.0, 0.0)
    assert str(objective.student_taps[0]) == 'backbone'


def test_describe_and_views():
    objective = prepare(MGD(), [3], [4])
    assert 'hides 45% of all cells' in objective.describe()[-1]
    s, t = random_maps(2, [3]), random_maps(2, [4])
    assert [v.kind for v in objective.views(trace_of(objective, s, t))] == ['mask', 'heat']


def test_mask_leaves_cells_out():
    student, teacher = ToySegmentor(4), ToySegmentor(6)
    labels = torch.zeros(2, 32, 48, dtype=torch.long)
    labels[:, :, :16] = 255  # the first two columns of the map
    objective = prepare_for(MGD(mask_ratio=0.0, mask_ignore=True), student, teacher)
    objective.generators['0'] = nn.Identity()
    trace = make_step(objective, student, teacher, labels=labels)
    error = [(s - t).square() for s, t in objective.tensor_pairs(trace)][0]
    torch.testing.assert_close(objective(trace)['loss'], error[..., 2:].sum() / 2)
    objective.mask_ignore = False
    torch.testing.assert_close(objective(trace)['loss'], error.sum() / 2)


def test_bad_input():
    for ratio in (-0.1, 1.1, float('nan')):
        with pytest.raises(ValueError, match=r'mask_ratio must be a finite number from 0 to 1'):
            MGD(mask_ratio=ratio)
    with pytest.raises(ValueError, match="mask must be one of .'spatial', 'channel'."):
        MGD(mask='cells')
    with pytest.raises(ValueError, match='MGD works for two-stage, .*classifier'):
        MGD().bind(toy('classifier'), toy('classifier'))
    objective = MGD()
    objective.bind(toy(), toy())
    with pytest.raises(ValueError, match='compares feature maps'):
        objective.setup(levels([7]), [Level((7,), None, 'head')])
    with pytest.raises(ValueError, match='in_channels'):
        objective.setup(None, None)


def test_typed_widths():
    objective = MGD(student='neck[0]', in_channels=3, out_channels=4)
    objective.bind(toy(), toy())
    objective.setup(None, None)
    loss_of(objective, random_maps(1, [3]), random_maps(1, [4])).backward()
