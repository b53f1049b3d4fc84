"""FBKD against the sheet's numbers and the equations written out in float64."""

import pytest
import torch
from pyramid_toys import prepare, random_maps, slow_non_local, toy, trace_of
from torch import nn
from torch.nn import functional as F

from mmkd.functional.attention import softmax_attention
from mmkd.levels import Level
from mmkd.methods.fbkd import FBKD, PRESETS, Connectors, attention_masks, distance, norm

T = torch.tensor([[[[1.0, 3.0]], [[1.0, 1.0]]]], dtype=torch.float64)
S = torch.tensor([[[[1.0, 1.0]], [[1.0, 0.0]]]], dtype=torch.float64)
KEYS = ('loss_feature', 'loss_channel_attention', 'loss_spatial_attention', 'loss_relation')


def make_identity(connect):
    """Every adapter the identity; the non-local blocks are at the beginning."""
    nn.init.zeros_(connect.spatial.weight)
    connect.spatial.weight.data[0, 0, 1, 1] = 1
    for module in (connect.feature, connect.relation, connect.channel):
        eye = torch.eye(len(module.weight), dtype=module.weight.dtype)
        module.weight.data = eye.view_as(module.weight)
    for module in (connect.feature, connect.relation, connect.channel, connect.spatial):
        nn.init.zeros_(module.bias)
    return connect


def bound(**options):
    objective = FBKD(**options)
    objective.bind(toy(), toy())
    return objective


def terms_of(s, t, **options):
    connect = make_identity(Connectors(s.shape[1], t.shape[1], 4, 8)).to(s.dtype)
    return bound(**options).level_terms(s, t, connect)


def test_worked_masks():  # FBKD-1
    spatial_t, spatial_s = softmax_attention(T, 0.5)[0], softmax_attention(S, 0.5)[0]
    assert spatial_t.flatten().tolist() == pytest.approx([0.238406, 1.761594], abs=1e-6)
    assert spatial_s.flatten().tolist() == pytest.approx([1.462117, 0.537883], abs=1e-6)
    spatial, channel = attention_masks(S, T, 0.5, True)
    assert spatial.flatten().tolist() == pytest.approx([0.850262, 1.149738], abs=1e-6)
    assert channel.flatten().tolist() == pytest.approx([1.611856, 0.388144], abs=1e-6)
    assert attention_masks(S, T, 0.5, False)[1] is None
    # unequal widths: the teacher's alone
    wide = torch.cat((T, T), 1)
    assert torch.equal(attention_masks(S, wide, 0.5, True)[1], softmax_attention(wide, 0.5)[1])


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_worked_terms(dtype):  # FBKD-2, FBKD-3, FBKD-5
    s, t = S.to(dtype), T.to(dtype)
    for channel_mask, wanted in ((False, 2.397643), (True, 2.803411)):
        found = terms_of(s, t, tau=0.5, use_channel_mask=channel_mask)
        assert float(found[0].detach()) == pytest.approx(wanted, rel=1e-6)
    assert float(found[1].detach()) == pytest.approx(1.118034, rel=1e-6)
    assert float(found[2].detach()) == pytest.approx(1.5)
    assert float(found[3].detach()) == pytest.approx(float((t - s).norm()), rel=1e-6)


def test_mask_sums():  # FBKD-4
    s, t = (m[0].double() for m in (random_maps(3, [5]), random_maps(3, [5], seed=1)))
    spatial, channel = attention_masks(s, t, 0.1, True)
    assert spatial.sum((1, 2)).tolist() == pytest.approx([256] * 3)
    assert channel.sum(1).tolist() == pytest.approx([5] * 3)
    for mask in attention_masks(s, t, 1e9, True):
        torch.testing.assert_close(mask, torch.ones_like(mask))


def test_equality():  # FBKD-6, GEN-1
    for maps in (torch.randn(2, 4, 8, 8), torch.zeros(2, 4, 8, 8)):
        s = maps.clone().requires_grad_()
        connect = make_identity(Connectors(4, 4, 4, 8))
        terms = bound(use_channel_mask=True).level_terms(s, maps, connect)
        assert all(float(term.detach()) == 0 for term in terms)
        sum(terms).backward()
        assert (s.grad == 0).all()
        assert all(p.grad.isfinite().all() for p in connect.parameters())
    assert sum(bound().level_terms(s, maps + 1, Connectors(4, 4, 4, 8))) > 0


def test_batch_size():  # FBKD-7
    s, t = (m[0] for m in (random_maps(2, [4]), random_maps(2, [4], seed=1)))
    before = terms_of(s, t)
    for factor, per_image in ((2.0, False), (1.0, True)):
        if per_image:
            before = terms_of(s, t, per_image=True)
        after = terms_of(*(x.repeat(4, 1, 1, 1) for x in (s, t)), per_image=per_image)
        for a, b in zip(after, before, strict=True):
            torch.testing.assert_close(a, factor * b)


def test_gradients():  # FBKD-8
    objective = prepare(FBKD(), [8, 8], [8, 12])
    for connect in objective.connectors.values():  # as after some training
        for block in (connect.student, connect.target):
            nn.init.normal_(block.norm.weight)
    s, t = random_maps(2, [8, 8], grad=True), random_maps(2, [8, 12], seed=1, grad=True)
    trace = trace_of(objective, s, t)
    result = objective(trace)
    assert tuple(result) == KEYS
    for value in result.values():
        grads = torch.autograd.grad(value, s, retain_graph=True)
        assert all(g.abs().max() > 0 for g in grads)
    sum(result.values()).backward()
    assert all(x.grad is None for x in t)
    assert all(p.grad is not None for p in objective.parameters())
    for connect in objective.connectors.values():
        assert connect.target.project.weight.grad.abs().max() > 0


def test_equations_written_out():
    options = dict(preset='one_stage', signed_mean=False)
    objective = prepare(FBKD(**options), [4], [6]).double()
    s, t = (random_maps(2, [c], seed=c)[0].double() for c in (4, 6))
    connect = objective.connectors['0']
    for block in (connect.student, connect.target):
        nn.init.normal_(block.norm.weight)

    def softmax(x):
        return torch.exp(x / 0.1) / torch.exp(x / 0.1).sum(-1, True)

    spatial = sum(256 * softmax(x.abs().mean(1).flatten(1)) for x in (s, t)) / 2
    channel = 6 * softmax(t.abs().mean((2, 3)))
    phi, relation = (F.conv2d(s, m.weight, m.bias) for m in (connect.feature, connect.relation))
    masked = spatial.view(2, 1, 16, 16) * channel.view(2, 6, 1, 1) * (t - phi) ** 2
    pooled = s.abs().mean((2, 3)) @ connect.channel.weight.T + connect.channel.bias
    places = F.conv2d(
        s.abs().mean(1, True), connect.spatial.weight, connect.spatial.bias, padding=1
    )
    r_s, r_t = slow_non_local(connect.student, s), slow_non_local(connect.target, t)
    relation = F.conv2d(r_s, connect.relation.weight, connect.relation.bias)
    wanted = (
        masked.sum() ** 0.5,
        ((t.abs().mean((2, 3)) - pooled) ** 2).sum() ** 0.5,
        ((t.abs().mean(1, True) - places) ** 2).sum() ** 0.5,
        ((r_t - relation) ** 2).sum() ** 0.5,
    )
    found = objective.level_terms(s, t, connect)
    for a, b in zip(found, wanted, strict=True):
        assert float(a.detach()) == pytest.approx(float(b.detach()), rel=1e-8)


def test_factors_and_levels():
    objective = prepare(FBKD(alpha=2.0, beta=3.0, gamma=5.0), [4, 4])
    s, t = random_maps(2, [4, 4]), random_maps(2, [4, 4], seed=1)
    found = objective(trace_of(objective, s, t))
    levels = [objective.level_terms(s[k], t[k], objective.connectors[f'{k}']) for k in range(2)]
    for key, term, factor in zip(KEYS, zip(*levels, strict=True), (2, 3, 3, 5), strict=True):
        torch.testing.assert_close(found[key], factor * sum(term))


def test_non_local_of_each_level():
    objective = prepare(FBKD(), [256, 256, 256, 256])
    found = [
        (c.student.project.out_channels // 3, c.target.pool) for c in objective.connectors.values()
    ]
    assert found == [(64, 8), (64, 4), (128, 2), (128, 2)]
    assert 'student level 1 <- teacher level 1: 256 -> 256 channels' in objective.describe()[1]


@pytest.mark.parametrize(
    ('family', 'options', 'wanted'),
    [
        ('two_stage', {}, (7e-5, 4e-3, 7e-5, 0.5, False, True)),
        ('dense', {}, (4.2e-4, 2.4e-2, 4.2e-4, 0.1, True, True)),
        (
            'two_stage',
            {'preset': 'two_stage', 'variant': 'paper'},
            (7e-5, 4e-3, 7e-5, 0.1, True, False),
        ),
        ('dense', {'variant': 'paper'}, (4e-4, 2e-2, 4e-4, 0.5, True, False)),
        (
            'dense',
            {'alpha': 0.0, 'tau': 2.0, 'use_channel_mask': False, 'signed_mean': False},
            (0.0, 2.4e-2, 4.2e-4, 2.0, False, False),
        ),
    ],
)
def test_presets(family, options, wanted):
    objective = FBKD(**options)
    objective.bind(toy(family), toy(family))
    names = ('alpha', 'beta', 'gamma', 'tau', 'use_channel_mask', 'signed_mean')
    assert tuple(getattr(objective, name) for name in names) == wanted
    assert [str(tap) for tap in objective.student_taps] == ['neck']
    assert set(PRESETS) == {f'{s}_stage_{w}' for s in ('one', 'two') for w in ('code', 'paper')}


def test_options_change_the_numbers():
    s, t = (m[0] for m in (random_maps(2, [4]), random_maps(2, [4], seed=1)))
    plain = [float(x.detach()) for x in terms_of(s, t)]
    for options, moved in (
        ({'tau': 5.0}, [0]),
        ({'use_channel_mask': True}, [0]),
        ({'signed_mean': False}, [1, 2]),
        ({'per_image': True}, [0, 1, 2, 3]),
    ):
        found = [float(x.detach()) for x in terms_of(s, t, **options)]
        changed = [k for k in range(4) if found[k] != pytest.approx(plain[k], rel=1e-6)]
        assert changed == moved, options
    assert float(norm(s - t, per_image=True)) == pytest.approx(
        sum(float((a - b).norm()) for a, b in zip(s, t, strict=True)) / 2
    )


@pytest.mark.parametrize('per_image', [False, True])
@pytest.mark.parametrize('count', [0, 1, 2])
def test_distance_is_the_norm_of_the_difference(per_image, count):
    torch.manual_seed(0)
    maps = [torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    factors = [torch.rand(2, 1, 4, 5).double(), torch.rand(2, 3, 1, 1).double()][:count]
    gap = maps[0] - maps[1]
    for factor in factors:
        gap = gap * factor
    values = norm(gap, per_image), distance(*maps, per_image, factors)
    wanted, found = (torch.autograd.grad(3 * value, maps) for value in values)
    torch.testing.assert_close(values[1], values[0])
    for own, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(own, other)
    constant = maps[1].detach()
    (alone,) = torch.autograd.grad(3 * distance(maps[0], constant, per_image, factors), maps[0])
    assert torch.equal(alone, found[0])
    same = distance(maps[0], maps[0].detach(), per_image, factors)
    assert same == 0 and not torch.autograd.grad(same, maps[0])[0].any()


def test_views():
    objective = prepare(FBKD(), [4])
    s, t = random_maps(2, [4]), random_maps(2, [4], seed=1)
    views = objective.views(trace_of(objective, s, t))
    assert [v.side for v in views] == ['student', 'teacher', '']


def test_bad_input():
    with pytest.raises(ValueError, match='preset must be one of'):
        FBKD(preset='two_stage_code')
    with pytest.raises(ValueError, match='variant must be one of'):
        FBKD(variant='mmrazor')
    for name in ('alpha', 'beta', 'gamma'):
        with pytest.raises(
            ValueError, match=f'{name} must be a finite number of at least 0, or None, found -1'
        ):
            FBKD(**{name: -1})
    with pytest.raises(ValueError, match='temperature tau'):
        FBKD(tau=0.0)
    with pytest.raises(ValueError, match='FBKD works for .*segmentor'):
        FBKD().bind(toy('segmentor'), toy('segmentor'))
    objective = bound()
    with pytest.raises(ValueError, match='in_channels= and out_channels='):
        objective.setup(None, None)
    objective = FBKD(student='neck[0]', in_channels=3, out_channels=4)
    objective.bind(toy(), toy())
    objective.setup(None, None)
    assert objective.connectors['0'].feature.weight.shape == (4, 3, 1, 1)


def test_pools_and_widths_of_the_non_local_blocks():
    """By levels, the last for all further ones; the defaults are the published code's."""

    def blocks(**options):
        objective = FBKD(['a', 'b', 'c'], **options)
        levels = [
            Level((16, 16 // k, 16 // k), 8 * k, tap) for k, tap in ((1, 'a'), (2, 'b'), (4, 'c'))
        ]
        objective.setup(levels, levels)
        found = [connect.student for connect in objective.connectors.values()]
        return [(block.pool, block.out.in_channels) for block in found]

    assert blocks() == [(8, 4), (4, 4), (2, 8)]
    assert blocks(pools=(4, 2), shrinks=(2,)) == [(4, 8), (2, 8), (2, 8)]
    with pytest.raises(ValueError, match='FBKD: each of pools must be'):
        FBKD(pools=(8, 0))
