"""TSL against worked numbers and the loop over neighbours."""

import copy

import pytest
import torch
from segmentation_toys import ToySegmentor, make_step, prepare, probe_tensors

from mmkd.methods.kd import soft_kl
from mmkd.methods.tsl import TSL, consistency, masked_mean, probability_distance

S, T, Y = probe_tensors()


def slow_consistency(z, reduce, border):
    n, _, h, w = z.shape
    result = z.new_zeros(n, h, w)
    for y in range(h):
        for x in range(w):
            near = [
                (v, u)
                for v in (y - 1, y, y + 1)
                for u in (x - 1, x, x + 1)
                if (v, u) != (y, x) and 0 <= v < h and 0 <= u < w
            ]
            for v, u in near:
                result[:, y, x] += (z[:, :, v, u] - z[:, :, y, x]).square().sum(1) / (
                    len(near) if reduce == 'mean' else 1
                )
    return result[:, 1:-1, 1:-1] if border == 'valid' else result


@pytest.mark.parametrize(
    ('reduce', 'border', 'wanted'),
    [
        ('sum', 'valid', 33.6500674),
        ('sum', 'inbounds', 21.8701853),
        ('mean', 'valid', 0.5257823),
        ('mean', 'inbounds', 0.7924462),
    ],
)
def test_consistency_probe(reduce, border, wanted):
    maps = [consistency(z, reduce, border) for z in (S, T)]
    assert float((maps[0] - maps[1]).square().mean()) == pytest.approx(wanted, rel=1e-7)
    torch.testing.assert_close(maps[0], slow_consistency(S, reduce, border))
    wide = torch.cat((S, T), 3)[:, :, :3]
    torch.testing.assert_close(
        consistency(wide, reduce, border), slow_consistency(wide, reduce, border)
    )
    single = [consistency(z.float(), reduce, border) for z in (S, T)]
    assert float((single[0] - single[1]).square().mean()) == pytest.approx(wanted, rel=1e-4)


def test_more_worked_numbers():
    assert consistency(S)[0].flatten().tolist() == pytest.approx([13.68, 26.44, 26.44, 13.68])
    p = [z.softmax(1) for z in (S, T)]
    distance = (consistency(p[0]) - consistency(p[1])).square().mean()
    assert float(distance) == pytest.approx(1.3062441, rel=1e-6)
    assert float(probability_distance(S, T).mean()) == pytest.approx(0.1369771, abs=1e-6)
    assert float((p[0] - p[1]).square().mean()) == pytest.approx(0.0456590, abs=1e-6)
    kl = probability_distance(S, T, 'kl').mean()
    assert float(kl) == pytest.approx(0.2119143, abs=1e-6)


def test_impulse():
    z = torch.zeros(1, 1, 3, 3)
    z[0, 0, 1, 1] = 1
    assert consistency(z, border='inbounds')[0].tolist() == [[1, 1, 1], [1, 8, 1], [1, 1, 1]]
    assert consistency(z)[0].tolist() == [[8]]


def test_no_cancellation_far_from_zero():
    z = torch.full((1, 1, 3, 3), 300.0)
    z[0, 0, 1, 1] += 0.0125
    step = float(z[0, 0, 1, 1]) - 300
    assert float(consistency(z)) == pytest.approx(8 * step**2, rel=1e-6)


def test_invariances():
    shift = torch.tensor([5.0, -3, 1]).double().view(1, 3, 1, 1)
    rotation = torch.linalg.qr(S.flatten()[:9].view(3, 3) + torch.eye(3)).Q
    torch.testing.assert_close(consistency(S + shift), consistency(S))
    torch.testing.assert_close(consistency(2 * S), 4 * consistency(S))
    rotated = torch.einsum('kc,nchw->nkhw', rotation, S)
    torch.testing.assert_close(consistency(rotated), consistency(S))
    assert consistency(torch.ones(1, 2, 5, 4)).sum() == 0
    assert not torch.equal(consistency(S.flip(3)), consistency(S))


def test_gradient():
    s = S[:1].clone().requires_grad_()
    for reduce, border in (('sum', 'valid'), ('mean', 'inbounds')):
        assert torch.autograd.gradcheck(lambda z, r=reduce, b=border: consistency(z, r, b).sum(), s)


def test_objective_and_its_options():
    student, teacher = ToySegmentor(4), ToySegmentor(6)
    objective = prepare(TSL(), student, teacher)
    trace = make_step(objective, student, teacher)
    s, t = objective.tensor_pairs(trace)[0]
    losses = objective(trace)
    torch.testing.assert_close(losses['loss_prob'], probability_distance(s, t).mean())
    wanted = (consistency(s) - consistency(t)).square().mean()
    torch.testing.assert_close(losses['loss_consistency'], 0.01 * wanted)
    sum(losses.values()).backward()
    assert student.backbone.conv.weight.grad.abs().sum() > 0
    options = dict(source='prob', neighbour_reduce='mean', border='inbounds', prob_loss='kl')
    losses = prepare(TSL(**options, factors=dict(prob=2, consistency=3)), student, teacher)(trace)
    maps = [consistency(z.softmax(1), 'mean', 'inbounds') for z in (s, t)]
    torch.testing.assert_close(losses['loss_consistency'], 3 * (maps[0] - maps[1]).square().mean())
    kl = soft_kl(*(z.permute(0, 2, 3, 1) for z in (s, t)), 1.0).mean()
    torch.testing.assert_close(losses['loss_prob'], 2 * kl)
    assert list(prepare(TSL(factors=dict(prob=0)), student, teacher)(trace)) == ['loss_consistency']
    assert list(prepare(TSL(factors=dict(consistency=0)), student, teacher)(trace)) == ['loss_prob']
    assert len(objective.views(trace)) == 2


@pytest.mark.parametrize('border', ['valid', 'inbounds'])
def test_mask_drops_what_touches_ignored_pixels(border):
    student, teacher = ToySegmentor(4), ToySegmentor(6)
    objective = prepare(TSL(mask_ignore=True, border=border), student, teacher)
    labels = torch.zeros(2, 32, 48, dtype=torch.long)
    labels[:, :, :8] = 255  # the first column of the map
    trace = make_step(objective, student, teacher, labels=labels)
    s, t = objective.tensor_pairs(trace)[0]
    difference = (consistency(s, border=border) - consistency(t, border=border)).square()
    kept = difference[:, :, 1:] if border == 'valid' else difference[:, :, 2:]
    losses = objective(trace)
    torch.testing.assert_close(losses['loss_consistency'], 0.01 * kept.mean())
    wanted = probability_distance(s, t)[:, :, 1:].mean()
    torch.testing.assert_close(losses['loss_prob'], wanted)


def test_everything_ignored_is_zero_with_a_graph():
    student, teacher = ToySegmentor(), ToySegmentor()
    objective = prepare(TSL(mask_ignore=True), student, teacher)
    losses = objective(make_step(objective, student, teacher, labels=torch.full((2, 32, 48), 255)))
    sum(losses.values()).backward()
    assert sum(float(v.detach()) for v in losses.values()) == 0
    assert float(masked_mean(torch.ones(2), torch.zeros(2))) == 0


def test_zero_at_equality():
    student = ToySegmentor().eval()
    twin = copy.deepcopy(student)
    objective = prepare(TSL(), student, twin)
    assert all(float(v) == 0 for v in objective(make_step(objective, student, twin)).values())


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: TSL(prob_loss='l1'), 'prob_loss must be one of'),
        (lambda: TSL(source='features'), 'source must be one of'),
        (lambda: TSL(neighbour_reduce='max'), 'neighbour_reduce must be one of'),
        (lambda: TSL(border='zero'), 'border must be one of'),
        (lambda: TSL(factors=dict(prob=-1)), 'factor prob must be a finite number of at least 0'),
        (lambda: TSL(factors=dict(prob=0, consistency=0)), 'factors of all terms .* are 0'),
        (lambda: TSL().bind(ToySegmentor(), ToySegmentor(num_classes=5)), '3 .*teacher 5'),
    ],
)
def test_bad_input(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_map_without_inner_cells():
    student, teacher = ToySegmentor(), ToySegmentor()
    objective = prepare(TSL(), student, teacher)
    with pytest.raises(ValueError, match="border='inbounds'"):
        objective(make_step(objective, student, teacher, size=(16, 32)))
    objective = prepare(TSL(border='inbounds'), student, teacher)
    trace = make_step(objective, student, teacher, size=(8, 16))
    assert all(v.isfinite() for v in objective(trace).values())
