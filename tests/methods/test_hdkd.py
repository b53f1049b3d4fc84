"""HDKD against worked numbers, its sums written out in loops, and what its partition promises."""

import copy
import math

import pytest
import torch
from pyramid_toys import prepare, random_maps, toy, trace_of
from torch.nn import functional as F

from mmkd.distiller import Distiller
from mmkd.functional.fusion import standard
from mmkd.levels import Level
from mmkd.methods.hdkd import HDKD, TERMS, standardised
from mmkd.testing import detection_batch, tiny_faster_rcnn, tiny_retinanet

FAMILY = 'dense'
T = torch.tensor([[[2.0, 2], [0, 0]], [[0, 0], [1, 1]]])[None]
S = torch.tensor([[[2.0, 0], [0, 2]], [[0, 0], [1, 3]]])[None]
ROWS = torch.tensor([[0, 0, 1, 1]])


def objective_for(widths, **options):
    return prepare(HDKD(**options), widths, family=FAMILY)


def pairs_of(student, teacher):
    return list(zip(student, teacher, strict=True))


def worked(labels=ROWS, **options):
    """The example of two channels, two sub-spaces (upper and lower row), two groups."""
    options = dict(subspaces=2, groups=2) | options
    objective = HDKD(**options)
    objective.bind(toy(FAMILY), toy(FAMILY))
    objective.setup([Level((2, 2, 2), 8, 'neck')], [Level((2, 2, 2), 8, 'neck')])
    return objective, {k: float(v.detach()) for k, v in objective.terms([(S, T)], labels).items()}


def test_worked_numbers():  # HD-1
    _, found = worked()
    wanted = {'local': 1.5, 'global': 0.75, 'channel': 0.168229, 'information': 0.2}
    assert found == pytest.approx(wanted | {'combined': 1.5}, rel=1e-5)
    assert list(found) == list(TERMS)


def test_names_of_clusters_and_empty_ones_do_not_matter():  # HD-4, HD-5
    _, wanted = worked()
    assert worked(1 - ROWS)[1] == pytest.approx(wanted)
    objective, found = worked(subspaces=3)
    assert found == pytest.approx(wanted)
    loss = sum(objective.terms([(S.clone().requires_grad_(), T)], 2 * ROWS).values())
    grads = torch.autograd.grad(loss, [objective.omega, *objective.gate.parameters()])
    assert all(g.isfinite().all() for g in grads)


def test_one_space_and_one_group_are_the_plain_error():  # HD-9
    objective = objective_for([4, 4], subspaces=1, groups=1)
    student, teacher = random_maps(2, [4, 4]), random_maps(2, [4, 4], seed=1)
    pairs = pairs_of(student, teacher)
    found = objective.terms(pairs, torch.zeros(2, 320).long())
    wanted = torch.stack([F.mse_loss(*pair) for pair in pairs]).mean()
    torch.testing.assert_close(found['local'], wanted)
    torch.testing.assert_close(found['combined'], wanted)
    assert found['information'] == 0 and found['information'].requires_grad


def literal(objective, pairs, labels, tau):
    """The definition, sum by sum, in float64."""
    n, k, m = len(labels), objective.k, objective.m
    groups, omega = objective.partition.groups, objective.omega.double()
    spaces = labels.split([s[0, 0].numel() for s, _ in pairs], 1)
    cells = {}  # (image, sub-space) -> features of student and teacher
    local, combined, means = [], [], {}
    scaled = []
    for (s, t), space in zip(pairs, spaces, strict=True):
        s, t = (x.double().flatten(2).mT for x in (s, t))
        e = torch.stack([omega[j][groups[j]] for j in range(k)])
        s = torch.stack([s[i] * e[space[i]] for i in range(n)])
        scaled.append((s, t, space))
        for j in range(k):
            if (space == j).any():
                local.append((s - t)[space == j].square().sum() / t.shape[-1] / (space == j).sum())
            for i in range(n):
                own = cells.setdefault((i, j), ([], []))
                own[0].append(s[i][space[i] == j]), own[1].append(t[i][space[i] == j])
    cells = {key: [torch.cat(side) for side in sides] for key, sides in cells.items()}
    zero = torch.zeros(pairs[0][0].shape[1]).double()
    means = {key: [x.mean(0) if len(x) else zero for x in pair] for key, pair in cells.items()}
    full = [key for key, pair in cells.items() if len(pair[0])]
    w1, w2 = (objective.fusion[i].weight.double() for i in (0, 2))
    whole, channel, information, gates = [], [], [], []
    for i, j in full:
        g, wanted = means[i, j]
        whole.append((g + w2 @ (w1 @ g).relu() - wanted).square().mean())
        shares = []
        for x in cells[i, j]:
            energy = [
                x[:, groups[j] == c].square().mean() if (groups[j] == c).any() else 0
                for c in range(m)
            ]
            energy = (torch.stack([torch.as_tensor(e).double() for e in energy]) + 1e-6) ** (
                1 / tau
            )
            shares.append(energy / energy.sum())
        channel.append(tau**2 * (shares[1] * (shares[1] / shares[0]).log()).sum())
        for other in range(k):
            if other != j and (i, other) in full:
                a, b = (F.cosine_similarity(means[i, j][x], means[i, other][x], 0) for x in (0, 1))
                information.append((a - b).square())
    for i in range(n):
        flat = torch.cat([means[i, j][0] for j in range(k)])
        gates.append(k * objective.gate.double()(flat).softmax(0))
    objective.gate.float()
    for s, t, space in scaled:
        z = torch.stack([gates[i][space[i]][:, None] * s[i] for i in range(n)])
        combined.append((z - t).square().mean())
    parts = local, whole, channel, information, combined
    return [float(torch.stack(x).mean().detach()) for x in parts]


@pytest.mark.parametrize('tau', [1.0, 2.5])
def test_transcription(tau):
    torch.manual_seed(0)
    objective = objective_for([6, 6, 6], groups=3, tau=tau)
    for parameter in objective.parameters():
        torch.nn.init.normal_(parameter, 0.5 if parameter is objective.omega else 0, 0.3)
    objective.partition.groups.copy_(torch.randint(3, (3, 6)))
    objective.partition.groups[0] = torch.tensor([0, 0, 0, 2, 2, 2])  # one group is empty
    pairs = pairs_of(random_maps(2, [6] * 3), random_maps(2, [6] * 3, seed=1))
    labels = torch.randint(3, (2, 336))
    labels[1][labels[1] == 2] = 0  # one sub-space is empty in one image
    labels[:, 320:] = 1  # and two on one level
    found = objective.terms(pairs, labels)
    wanted = dict(zip(TERMS, literal(objective, pairs, labels, tau), strict=True))
    assert {k: float(v.detach()) for k, v in found.items()} == pytest.approx(wanted, rel=1e-4)


def test_equal_maps_teach_nothing():  # HD-3
    objective = objective_for([16, 16])
    maps = random_maps(2, [16, 16])
    losses = objective(trace_of(objective, maps, maps))
    assert all(abs(float(losses[f'loss_{t}'].detach())) < 1e-6 for t in TERMS)
    shares = [float(losses[f'share_{k}']) for k in range(3)]
    assert sum(shares) == pytest.approx(1) and min(shares) > 0


def test_who_learns_from_what():  # HD-7, HD-8
    objective = objective_for([16, 16])
    student, teacher = random_maps(2, [16, 16], grad=True), random_maps(2, [16, 16], seed=1)
    optimiser = torch.optim.SGD(objective.parameters(), lr=0.1)
    for _ in range(3):
        losses = objective(trace_of(objective, student, teacher))
        optimiser.zero_grad()
        sum(losses[f'loss_{t}'] for t in TERMS).backward()
        optimiser.step()
    losses = objective(trace_of(objective, student, teacher))
    reached = {
        term: [
            {
                g is not None and bool(g.any())
                for g in torch.autograd.grad(
                    losses[f'loss_{term}'], list(part), retain_graph=True, allow_unused=True
                )
            }
            for part in (
                [objective.omega],
                objective.fusion.parameters(),
                objective.gate.parameters(),
                student,
            )
        ]
        for term in TERMS
    }
    yes, no = {True}, {False}
    assert reached == {
        'local': [yes, no, no, yes],
        'global': [yes, yes, no, yes],
        'channel': [yes, no, no, yes],
        'information': [yes, no, no, yes],
        'combined': [yes, no, yes, yes],
    }
    assert not any(t.requires_grad for t in teacher)
    gates = objective.gates(torch.randn(5, 3, 16)).detach()
    assert gates.std() > 0
    torch.testing.assert_close(gates.sum(1), torch.full((5,), 3.0))


def test_options():
    maps = random_maps(2, [16, 16]), random_maps(2, [16, 16], seed=1)
    plain = objective_for([16, 16])
    wanted = plain(trace_of(plain, *maps))
    other = objective_for([16, 16], factors=dict(channel=3.0, local=0))
    found = other(trace_of(other, *maps))
    torch.testing.assert_close(found['loss_channel'], 3 * wanted['loss_channel'])
    assert found['loss_local'] == 0 and found['loss_global'] == wanted['loss_global']
    seeded = objective_for([16, 16], seed=1)
    seeded(trace_of(seeded, *maps))
    assert not torch.equal(seeded.partition.centroids, plain.partition.centroids)
    scaled = [100 * x + 7 for x in maps[0]], [100 * x + 7 for x in maps[1]]
    losses = []
    for pair in (maps, scaled):
        standard = objective_for([16, 16], norm_teacher=True)
        labels = torch.arange(320).repeat(2, 1) % 3
        losses.append(standard.terms([standardised(*p) for p in pairs_of(*pair)], labels))
        standard(trace_of(standard, *pair))
    for term in TERMS:
        torch.testing.assert_close(*(loss[term] for loss in losses), rtol=1e-3, atol=1e-5)
    s, t = standardised(maps[0][0], maps[1][0])
    torch.testing.assert_close(t.mean((0, 2, 3)), torch.zeros(16), atol=1e-6, rtol=0)
    torch.testing.assert_close(t.square().mean((0, 2, 3)), torch.ones(16))
    assert s.mean((0, 2, 3)).abs().max() > 1e-3
    normed = standard(trace_of(standard, *maps))
    assert normed['loss_local'] != wanted['loss_local']


def test_partition_is_saved_and_learns_in_training_only():
    objective = objective_for([16, 16], refresh=2)
    maps = random_maps(2, [16, 16]), random_maps(2, [16, 16], seed=1)
    for _ in range(3):
        objective(trace_of(objective, *maps))
    twin = objective_for([16, 16], refresh=2, seed=5)
    twin.load_state_dict(copy.deepcopy(objective.state_dict()))
    one, other = (o(trace_of(o, *maps)) for o in (objective, twin))
    assert all(torch.equal(one[k], other[k]) for k in one)
    assert objective.partition.steps == 4
    objective.eval()
    state = copy.deepcopy(objective.state_dict())
    objective(trace_of(objective, *maps))
    (view, _) = objective.views(trace_of(objective, *maps))
    assert view.maps.shape == (2, 16, 16) and view.kind == 'classes'
    assert all(torch.equal(state[k], v) for k, v in objective.state_dict().items())


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: HDKD(subspaces=0), 'subspaces must be a whole number of at least 1, found 0'),
        (lambda: HDKD(groups=0), 'at least 1'),
        (lambda: HDKD(refresh=0), 'at least 1'),
        (lambda: HDKD(tau=0), 'tau must be a finite number above 0'),
        (lambda: HDKD(factors=dict(gate=1)), 'a key of factors must be one of'),
        (
            lambda: HDKD(factors=dict(local=math.inf)),
            'factor local must be a finite number of at least 0',
        ),
        (lambda: objective_for([4, 4]), r'at least 8 \(groups\), .* found widths \[4\]'),
        (lambda: objective_for([8, 16]), r'one width, .* found widths \[8, 16\]'),
        (lambda: HDKD().bind(toy('segmentor'), toy('segmentor')), 'HDKD works for'),
    ],
)
def test_bad_input(build, message):
    with pytest.raises(ValueError, match=message):
        build()


# ------------------------------------------------------------------------- several teachers


def of_several(widths=(8, 8), makes=(tiny_retinanet, tiny_retinanet)):
    torch.manual_seed(0)
    teachers = {
        name: dict(config=make(width), checkpoint='random')
        for name, make, width in zip('ab', makes, widths, strict=True)
    }
    entry = dict(type='mmkd.HDKD', teacher_name=['a', 'b'])
    return Distiller(tiny_retinanet(4), dict(it=entry), teachers, preflight=False).train()


def test_the_mean_of_several_teachers():
    distiller, seen = of_several(), []
    objective = distiller.objectives['it']
    objective.register_forward_pre_hook(lambda _m, a: seen.append(a[0]))
    losses = distiller.loss(*detection_batch())
    assert all(losses[f'kd.it.loss_{term}'].isfinite() for term in TERMS)
    (trace,) = seen
    for (_, target), *maps in zip(
        objective.tensor_pairs(trace), *(s['neck'] for s in trace.teachers.values()), strict=True
    ):
        torch.testing.assert_close(target, sum(standard(t) for t in maps) / 2)


def test_teachers_of_other_levels_are_refused():
    with pytest.raises(ValueError, match="several teachers' maps, but strides and widths"):
        of_several(widths=(8, 16))
    with pytest.raises(ValueError, match="several teachers' maps, but strides"):
        of_several(makes=(tiny_retinanet, tiny_faster_rcnn))
