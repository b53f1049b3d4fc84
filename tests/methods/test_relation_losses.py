"""Losses on relations between the images of a batch: worked numbers, slow loops, invariances."""

import itertools
import math

import pytest
import torch
from torch import nn

from mmkd.engine.benchmark import peak_bytes
from mmkd.functional.relations import distances, unit
from mmkd.methods import rkd
from mmkd.methods.cckd import CCKD, correlations, neighbor_error
from mmkd.methods.darkrank import DarkRank, log_likelihood, ranking_error
from mmkd.methods.gkd import GKD, adjacency, graph_error, nearest
from mmkd.methods.information_flow import InformationFlow, flow_divergence
from mmkd.methods.irg import IRG, edges, relation_error, transform
from mmkd.methods.pkt import PKT, neighbour_probabilities, transfer_error
from mmkd.methods.rkd import RKD, angle_error, angles, distance_error
from mmkd.methods.sp import SP, similarity_error
from mmkd.methods.triplet_distillation import TripletDistillation, margins, triplet_gaps
from mmkd.schedule import Progress
from mmkd.teacher import build_model
from mmkd.testing import class_labels, make_trace, ready, tiny_classifier, tiny_retinanet

A = torch.tensor([[1, 0], [1, 1], [0, 2]], dtype=torch.float64)
B = torch.tensor([[2, 0], [0, 1], [1, 1]], dtype=torch.float64)
RS = torch.tensor([[0, 0], [3, 4], [6, 8]], dtype=torch.float64)
RT = torch.tensor([[0, 0], [1, 0], [0, 1]], dtype=torch.float64)
KS = torch.tensor([[0, 0], [1, 0], [0, 0.5], [0.6, 0.6]], dtype=torch.float64)
KT = torch.tensor([[0, 0], [0.4, 0], [0, 1], [0.5, 0.5]], dtype=torch.float64)
LABELS = torch.tensor([0, 1, 0, 1, 0])


def random_rows(seed=0, b=5, widths=(3, 4), dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(b, d, generator=generator, dtype=torch.float64).to(dtype) for d in widths]


def edge_loss(s, t):
    return relation_error(edges(s), edges(t))


def transform_loss(s, t):
    return relation_error(transform(s[:, :2], s), transform(t[:, :2], t))


def congruence(kernel):
    def loss(s, t):
        return (correlations(s, kernel) - correlations(t, kernel)).square().mean()

    return loss


def ranking(variant):
    def loss(s, t):
        return ranking_error(distances(unit(s)), distances(unit(t)), variant)

    return loss


def triplet_loss(s, t):
    return on_rows(TripletDistillation('x'), s, t, LABELS[: len(s)])


LOSSES = {
    'RKD-D': distance_error,
    'RKD-A': angle_error,
    'IRG-edge': edge_loss,
    'IRG-transform': transform_loss,
    'GKD': graph_error,
    'GKD-2': lambda s, t: graph_error(s, t, 2, 2),
    'SP': similarity_error,
    'PKT': transfer_error,
    'PKT-paper': lambda s, t: transfer_error(s, t, False),
    'flow': flow_divergence,
    'DarkRank-hard': ranking('hard'),
    'DarkRank-soft': ranking('soft'),
    **{f'CC-{k}': congruence(k) for k in ('taylor', 'rbf', 'bilinear', 'mmd')},
}
SAME_WIDTH = {'CC-neighbors': neighbor_error}
every = pytest.mark.parametrize('name', LOSSES)


def on_rows(objective, student, teacher, labels=None, **options):
    """The objective's total on what tap 'x' shows, in whatever precision that is."""
    samples = None if labels is None else class_labels(labels)
    trace = make_trace({'x': student}, {'x': teacher}, samples=samples, **options)
    ready(objective, trace)
    found = objective(trace)
    return sum(v for k, v in found.items() if k.startswith('loss'))


@pytest.mark.parametrize(
    ('found', 'wanted'),
    [
        (distance_error(RS, RT), 0.0716991),
        (angle_error(RS, RT), 0.1296296),
        (similarity_error(A, B), 0.1509732),
        (transfer_error(A, B), 0.0150384),
        (3 * transfer_error(A, B), 0.0451152),
        (3 * transfer_error(A, B, False), 0.0698459),
        (graph_error(A, B), 2.0),
        (graph_error(A, B, 2), 1.5),
        (relation_error(edges(A), edges(B)), 0.231111),
        (relation_error(edges(A), edges(B), 'sum'), 0.3466667),
        (congruence('taylor')(A, B), 0.0472545),
        (congruence('rbf')(A, B), 0.0519183),
        (neighbor_error(A, B), 1.0),
        (flow_divergence(A, B), 0.0452609),  # 0.0452683 with 1e-6 under the root, as in the code
        (ranking_error(distances(KS), distances(KT), 'hard', length=3), 2.5248534),
        (ranking_error(distances(KS), distances(KT), 'soft', length=3), 1.2378160),
    ],
)
def test_worked_numbers(found, wanted):
    assert float(found) == pytest.approx(wanted, abs=1e-6)


def test_distances_of_close_rows_far_from_the_origin():
    x = 1000 + random_rows(b=4, dtype=torch.float32)[0] / 100
    wanted = (x[:, None].double() - x).norm(dim=2)
    torch.testing.assert_close(distances(x).double(), wanted, rtol=1e-6, atol=0)
    twins = torch.cat((x, x[:1])).requires_grad_()
    found = distances(twins)
    assert not found[0, 4] and not found.diagonal().any()
    assert torch.autograd.grad(found[0, 4], twins)[0].abs().max() == 0
    wide = torch.rand(48, 4096, requires_grad=True)  # not 48 * 48 * 4096 * 4 = 38e6 bytes
    assert peak_bytes(lambda: distances(wide).sum().backward()) < 15e6


def test_rkd_is_what_loops_give():
    s, t = random_rows()
    b = len(s)

    def huber(x):
        return x * x / 2 if abs(x) <= 1 else abs(x) - 0.5

    def angle(x, i, j, k):
        if j in (i, k):
            return 0.0
        u, v = x[i] - x[j], x[k] - x[j]
        return float(u @ v / (u.norm() * v.norm()))

    def relative(x):
        pairs = [float((x[i] - x[j]).norm()) for i in range(b) for j in range(b) if i != j]
        mean = sum(pairs) / len(pairs)
        return [float((x[i] - x[j]).norm()) / mean for i in range(b) for j in range(b)]

    wanted = sum(huber(p - q) for p, q in zip(relative(s), relative(t), strict=True)) / b**2
    assert float(distance_error(s, t)) == pytest.approx(wanted)
    triples = list(itertools.product(range(b), repeat=3))
    wanted = sum(huber(angle(s, *ijk) - angle(t, *ijk)) for ijk in triples) / b**3
    assert float(angle_error(s, t)) == pytest.approx(wanted)
    line = torch.tensor([[0.0, 0], [1, 1], [3, 3]])
    assert angles(line, torch.tensor([1]))[0, 0, 2] == pytest.approx(-1)
    assert angles(line, torch.tensor([0]))[0, 1, 2] == pytest.approx(1)


def test_rkd_angles_in_parts(monkeypatch):
    s, t = random_rows(b=7)
    leaf = s.clone().requires_grad_()
    whole = torch.autograd.grad(angle_error(leaf, t), leaf)[0]
    monkeypatch.setattr(rkd, '_AT_ONCE', 300)
    assert float(angle_error(s, t)) == pytest.approx(float(angle_error(leaf, t).detach()))
    torch.testing.assert_close(torch.autograd.grad(angle_error(leaf, t), leaf)[0], whole)
    s, t = random_rows(b=48, widths=(256, 256), dtype=torch.float32)
    s.requires_grad_()
    parts = peak_bytes(lambda: angle_error(s, t).backward())
    monkeypatch.undo()
    assert parts < peak_bytes(lambda: angle_error(s, t).backward()) / 4


def test_darkrank_is_what_enumeration_gives():
    s, t = distances(KS), distances(KT)

    def probability(x, order, query):
        scores = [-3 * float(x[query, i]) ** 3 for i in order]
        value = 1.0
        for k in range(len(scores)):
            value *= math.exp(scores[k]) / sum(math.exp(score) for score in scores[k:])
        return value

    hard, soft, cross = [], [], []
    for query in range(4):
        others = [i for i in range(4) if i != query]
        order = sorted(others, key=lambda i, q=query: float(t[q, i]))
        hard.append(-math.log(probability(s, order, query)))
        lists = list(itertools.permutations(order))
        p_t, p_s = ([probability(x, ranks, query) for ranks in lists] for x in (t, s))
        assert sum(p_t) == pytest.approx(1) and sum(p_s) == pytest.approx(1)
        soft.append(sum(p * math.log(p / q) for p, q in zip(p_t, p_s, strict=True)))
        cross.append(-sum(p * math.log(q) for p, q in zip(p_t, p_s, strict=True)))
    assert hard[0] == pytest.approx(4.558405, abs=1e-6)
    assert sum(cross) / 4 == pytest.approx(2.450620, abs=1e-6)
    assert float(ranking_error(s, t, 'hard', length=3)) == pytest.approx(sum(hard) / 4)
    assert float(ranking_error(s, t, 'hard', length=None)) == pytest.approx(sum(hard) / 4)
    assert float(ranking_error(s, t, 'soft', length=3)) == pytest.approx(sum(soft) / 4)
    assert float(ranking_error(s, t, 'hard', length=2)) != pytest.approx(sum(hard) / 4)
    assert float(ranking_error(s, t, 'hard', 1.0)) != pytest.approx(sum(hard) / 4)
    assert float(ranking_error(s, t, 'hard', beta=2.0)) != pytest.approx(sum(hard) / 4)


def test_darkrank_hard_asks_the_teacher_for_nothing_but_order():
    s, t = distances(KS), distances(KT)
    assert torch.equal(ranking_error(s, t), ranking_error(s, t.square()))
    assert not torch.equal(ranking_error(s, t, 'soft'), ranking_error(s, t.square(), 'soft'))
    twins = torch.tensor([[1.0, 0], [1, 0], [0, 1], [1, 1]])  # one image twice, itself never
    alike = ranking_error(distances(twins), distances(twins), length=1)
    assert float(alike) == 0 and float(log_likelihood(torch.zeros(24))) == pytest.approx(
        -math.lgamma(25)
    )


def test_triplets_are_what_loops_give():
    s, t = (unit(x) for x in random_rows())
    own, wanted = distances(s).square(), distances(t).square()
    triplets = [
        (a, p, n)
        for a, p, n in itertools.permutations(range(5), 3)
        if LABELS[a] == LABELS[p] != LABELS[n]
    ]
    gaps = [max(float(wanted[a, n] - wanted[a, p]), 0) for a, p, n in triplets]
    total = 0.0
    for (a, p, n), gap in zip(triplets, gaps, strict=True):
        margin = 0.3 / max(gaps) * gap + 0.2
        total += max(float(own[a, p] - own[a, n]) + margin, 0)
    found = on_rows(TripletDistillation('x'), *random_rows(), LABELS)
    assert float(found) == pytest.approx(total / len(triplets), rel=1e-5)
    plain = sum(max(float(own[a, p] - own[a, n]) + 0.3, 0) for a, p, n in triplets)
    found = on_rows(TripletDistillation('x', low=0.3, high=0.3), *random_rows(), LABELS)
    assert float(found) == pytest.approx(plain / len(triplets), rel=1e-5)


def test_triplet_margins():
    found = margins(torch.tensor([0.2, 0.8, -1.0, 2.0]), torch.tensor(0.8), 0.2, 0.5)
    torch.testing.assert_close(found, torch.tensor([0.275, 0.5, 0.2, 0.5]))
    assert margins(torch.zeros(2), torch.tensor(0.0), 0.2, 0.5).tolist() == [pytest.approx(0.2)] * 2
    gaps, valid = triplet_gaps(torch.zeros(3, 3), torch.tensor([0, 0, 0]))
    assert gaps.shape == (6, 3) and not valid.any()


def test_triplet_margins_may_remember_the_largest_gap():
    objective = TripletDistillation('x', running_max=True)
    far, near = random_rows(0)[1], random_rows(1)[1]
    near = near.mean(0) + (near - near.mean(0)) / 50
    s = random_rows()[0]
    own = float(on_rows(TripletDistillation('x'), s, near, LABELS))
    assert float(on_rows(objective.eval(), s, near, LABELS)) == pytest.approx(own)
    assert float(objective.largest) == 0, 'evaluation leaves no trace'
    on_rows(objective.train(), s, far, LABELS)
    largest = float(objective.largest)
    assert largest > 0
    assert float(on_rows(objective, s, near, LABELS)) < own, 'small gaps deserve small margins now'
    assert float(objective.largest) == largest


def test_a_batch_without_triplets_gives_nothing():
    s = random_rows()[0].requires_grad_()
    for labels in (torch.zeros(5).long(), torch.arange(5)):
        loss = on_rows(TripletDistillation('x'), s, random_rows()[1], labels)
        assert float(loss.detach()) == 0 and not torch.autograd.grad(loss, s)[0].any()


def test_pkt_and_flow_are_what_loops_give():
    s, t = random_rows()
    b = len(s)

    def rows(x, kernel):
        table = [[kernel(x[i], x[j]) for j in range(b)] for i in range(b)]
        return [[value / sum(row) for value in row] for row in table]

    def cosine(u, v):
        return float(u @ v / (u.norm() * v.norm()) + 1) / 2

    def student_t(u, v):
        return 1 / (1 + float((u - v).norm()))

    pairs = list(itertools.product(range(b), repeat=2))
    p, q = rows(t, cosine), rows(s, cosine)
    wanted = sum(p[i][j] * math.log((p[i][j] + 1e-7) / (q[i][j] + 1e-7)) for i, j in pairs) / b**2
    assert float(transfer_error(s, t)) == pytest.approx(wanted)
    wanted = 0.0
    for kernel in (cosine, student_t):
        p, q = rows(t, kernel), rows(s, kernel)
        wanted += sum(
            (p[i][j] - q[i][j]) * (math.log(p[i][j]) - math.log(q[i][j])) for i, j in pairs
        )
    assert float(flow_divergence(s, t)) == pytest.approx(wanted / b**2)
    assert float(flow_divergence(t, s)) == pytest.approx(wanted / b**2), 'it is symmetric'
    torch.testing.assert_close(neighbour_probabilities(s).sum(1), torch.ones(b).double())
    assert not neighbour_probabilities(s, False).diagonal().any()


def test_gkd_graph():
    graph = adjacency(random_rows(b=8)[0])
    values = torch.linalg.eigvalsh(graph)
    assert float(values[-1]) == pytest.approx(1) and float(values[0]) >= -1
    assert torch.allclose(graph, graph.T) and not graph.diagonal().any()
    mask = nearest(torch.tensor([[0.0, 3, 1], [3, 0, 2], [1, 2, 0]]), 1)
    assert mask.tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    s, t = random_rows(b=6)
    s_, t_ = adjacency(s), adjacency(t)
    keep = nearest(t_, 2)
    wanted = ((s_ * keep) @ (s_ * keep) - (t_ * keep) @ (t_ * keep)).square().sum()
    assert float(graph_error(s, t, 2, 2)) == pytest.approx(float(wanted))
    assert float(graph_error(s, t, neighbors=6)) == pytest.approx(float(graph_error(s, t)))
    below = torch.tensor([[1.0, -1], [-1, 1], [0, 1]], requires_grad=True)
    graph_error(below, below.detach().abs()).backward()
    assert below.grad.isfinite().all(), 'sums of rows that are no graph'


def test_congruence_kernels():
    x = unit(A)
    torch.testing.assert_close(
        correlations(A, 'taylor').diagonal(), torch.full((3,), 0.952577).double(), rtol=1e-6, atol=0
    )
    torch.testing.assert_close(correlations(A, 'rbf').diagonal(), torch.ones(3).double())
    torch.testing.assert_close(correlations(A, 'taylor', order=25), correlations(A, 'rbf'))
    torch.testing.assert_close(correlations(A, 'bilinear'), x @ x.T)
    wanted = (x.mean(1)[:, None] - x.mean(1)).abs()
    torch.testing.assert_close(correlations(A, 'mmd'), wanted)
    assert not torch.allclose(correlations(A, 'rbf', gamma=1.0), correlations(A, 'rbf'))


def turned(x):
    return x @ torch.linalg.qr(torch.randn(x.shape[1], x.shape[1]).to(x))[0]


CHANGES = {
    'scale': lambda x: 3 * x,
    'turn': turned,
    'shift': lambda x: x + 0.7,
    'rows': lambda x: x * torch.arange(1, len(x) + 1).to(x)[:, None],
}
INVARIANT = {
    'RKD-D': 'scale turn shift',
    'RKD-A': 'scale turn shift',
    'IRG-edge': 'scale turn shift',
    'IRG-transform': 'scale shift',
    'GKD': 'scale rows',
    'GKD-2': 'scale rows',
    'SP': 'scale turn',
    'PKT': 'scale turn rows',
    'PKT-paper': 'scale turn rows',
    'flow': 'turn',
    'DarkRank-hard': 'scale turn rows',
    'DarkRank-soft': 'scale turn rows',
    'CC-taylor': 'scale turn rows',
    'CC-rbf': 'scale turn rows',
    'CC-bilinear': 'scale turn rows',
    'CC-mmd': 'scale rows',
}


@pytest.mark.parametrize('change', CHANGES)
@every
def test_what_changes_nothing_and_what_does(name, change):
    torch.manual_seed(1)
    s, t = random_rows()
    before, after = float(LOSSES[name](s, t)), float(LOSSES[name](CHANGES[change](s), t))
    exempt = name.startswith('GKD') and change == 'turn'  # turning makes negative cosines
    same = change in INVARIANT[name].split()
    assert exempt or (after == pytest.approx(before, rel=1e-6)) == same


@every
def test_the_order_of_the_batch_does_not_matter(name):
    s, t = random_rows()
    order = torch.tensor([3, 0, 4, 1, 2])
    found = LOSSES[name](s[order], t[order])
    assert float(found) == pytest.approx(float(LOSSES[name](s, t)))


def test_the_order_of_the_batch_matters_to_products_of_neighbours():
    s, t = random_rows(widths=(3, 3))
    order = torch.tensor([3, 0, 4, 1, 2])
    assert float(neighbor_error(s[order], t[order])) != pytest.approx(float(neighbor_error(s, t)))


@pytest.mark.parametrize('name', [*LOSSES, *SAME_WIDTH])
def test_gradient(name):
    s, t = random_rows(widths=(3, 3))
    loss = {**LOSSES, **SAME_WIDTH}[name]
    if not name.startswith('IRG'):  # takes the largest distance for a constant
        assert torch.autograd.gradcheck(lambda x: loss(x, t), s.requires_grad_())
    if not name.startswith('DarkRank'):
        assert abs(float(loss(t, t))) < 1e-9


@pytest.mark.parametrize('kind', ['zero', 'huge', 'constant', 'one dead', 'half', 'bfloat16'])
@pytest.mark.parametrize('name', [*LOSSES, *SAME_WIDTH])
def test_hard_inputs_are_finite(name, kind):
    s, t = random_rows(widths=(3, 3), dtype=torch.float32)
    if kind in ('half', 'bfloat16'):
        s, t = (300 * x.to(getattr(torch, kind)) for x in (s, t))  # 300^2 is beyond half
    else:
        dead = torch.tensor([0.0, 1, 1, 1, 1])[:, None]
        s = {'zero': 0 * s, 'huge': 1e4 * s, 'constant': 0 * s + 1, 'one dead': dead * s}[kind]
    s.requires_grad_()
    loss = {**LOSSES, **SAME_WIDTH}[name](s, t)
    gradient = torch.autograd.grad(loss, s)[0]
    assert loss.isfinite() and gradient.isfinite().all()
    assert float(gradient.float().abs().max()) < 1e5


def objectives():
    return {
        'RKD': RKD,
        'IRG': lambda *taps, **options: IRG(*taps, vertex=0, transform=0, **options),
        'GKD': GKD,
        'SP': SP,
        'PKT': PKT,
        'CCKD': CCKD,
        'DarkRank': DarkRank,
        'InformationFlow': InformationFlow,
        'TripletDistillation': TripletDistillation,
    }


def on_maps(objective, sizes=((3, 4, 6), (5, 2, 2)), b=4):
    torch.manual_seed(0)
    student, teacher = (torch.rand(b, *size) for size in sizes)
    student.requires_grad_()
    loss = on_rows(objective, student, teacher, torch.arange(b) % 2)
    return loss, torch.autograd.grad(loss, student)[0]


@pytest.mark.parametrize('name', objectives())
def test_maps_of_any_width_and_size(name):
    loss, gradient = on_maps(objectives()[name]('x'))
    assert float(loss.detach()) > 0 and gradient.any()


@pytest.mark.parametrize('b', [1, 2])
@pytest.mark.parametrize('name', objectives())
def test_one_image_says_nothing_and_two_break_nothing(name, b):
    loss, gradient = on_maps(objectives()[name]('x'), b=b)
    assert gradient.isfinite().all()
    nothing = b == 1 or name in ('GKD', 'IRG', 'DarkRank', 'TripletDistillation', 'RKD')
    if name == 'CCKD' and b == 2:
        assert loss.isfinite()
    else:
        assert (abs(float(loss.detach())) < 1e-6) == nothing


def value(objective, *rows, **options):
    return float(on_rows(objective, *(rows or random_rows()), **options))


def test_options_of_rkd():
    s, t = random_rows()
    distance, angle = float(distance_error(s, t)), float(angle_error(s, t))
    assert value(RKD('x')) == pytest.approx(25 * distance + 50 * angle, rel=1e-5)
    assert value(RKD('x', distance=2, angle=0)) == pytest.approx(2 * distance, rel=1e-5)
    assert value(RKD('x', distance=0, angle=3)) == pytest.approx(3 * angle, rel=1e-5)
    for rows, options in (((s, unit(t)), 'teacher'), ((unit(s), unit(t)), 'both')):
        wanted = float(distance_error(*rows))
        found = value(RKD('x', distance=1, angle=0, normalize=options))
        assert found == pytest.approx(wanted, rel=1e-5) and found != pytest.approx(distance)


def test_options_of_pkt_gkd_and_darkrank():
    s, t = random_rows(b=6)
    assert value(PKT('x', diagonal=False), s, t) == pytest.approx(
        float(transfer_error(s, t, False)), rel=1e-4
    )
    assert value(GKD('x', power=2, neighbors=2), s, t) == pytest.approx(
        float(graph_error(s, t, 2, 2)), rel=1e-4
    )
    d_s, d_t = distances(unit(s)), distances(unit(t))
    for options in (dict(variant='soft', length=3), dict(alpha=2.0, beta=2.0, length=None)):
        assert value(DarkRank('x', **options), s, t) == pytest.approx(
            float(ranking_error(d_s, d_t, **options)), rel=1e-4
        )


def test_several_layers():
    first, second = random_rows(0), random_rows(1)
    sides = [dict(zip('ab', x, strict=True)) for x in zip(first, second, strict=True)]

    def run(objective):
        trace = make_trace(*sides)
        return {k: float(v) for k, v in ready(objective, trace)(trace).items()}

    a, b = graph_error(*first), graph_error(*second)
    assert run(GKD(['a', 'b']))['loss'] == pytest.approx(float(a + b) / 2, rel=1e-5)
    a, b = similarity_error(*first), similarity_error(*second)
    assert run(SP(['a', 'b']))['loss'] == pytest.approx(float(a + b), rel=1e-5)
    found = run(IRG(['a', 'b'], vertex=0, edge=2, transform=3))
    a, b = edge_loss(*first), edge_loss(*second)
    assert found['loss_edge'] == pytest.approx(float(a + b), rel=1e-5)
    moves = [transform(*pair) for pair in zip(first, second, strict=True)]
    assert found['loss_transform'] == pytest.approx(3 * float(relation_error(*moves)), rel=1e-4)
    found = run(IRG(['a', 'b'], vertex=0, edge=2, transform=0, edge_layers=1))
    assert found == {'loss_edge': pytest.approx(2 * float(b), rel=1e-5)}
    found = run(IRG(['a', 'b'], vertex=0, edge=1, transform=0, one_to_many=True))
    crossed = relation_error(edges(first[0]), edges(second[1]))
    assert found['loss_edge'] == pytest.approx(float(crossed + b) / 2, rel=1e-5)
    summed = run(IRG(['a', 'b'], vertex=0, edge=1, transform=1, reduction='sum', edge_layers=1))
    assert summed['loss_edge'] == pytest.approx(
        float((edges(second[0]) - edges(second[1])).square().sum() / 10), rel=1e-5
    )
    assert summed['loss_transform'] == pytest.approx(
        float((moves[0] - moves[1]).square().sum() / 2), rel=1e-4
    )
    flows = [float(flow_divergence(*pair)) for pair in (first, second)]
    found = run(InformationFlow(['a', 'b'], early=7))
    assert found['loss_last'] == pytest.approx(flows[1], rel=1e-4)
    assert found['loss_early'] == pytest.approx(7 * flows[0], rel=1e-4)
    assert set(run(InformationFlow(['a', 'b'], early=0))) == {'loss_last'}


def test_irg_narrows_the_wider_of_two_layers():
    wide = torch.tensor([[1.0, 3, 5, 7], [2, 2, 4, 4], [0, 0, 1, 1]])
    narrow = torch.tensor([[2.0, 6], [0, 0], [0, 1]])
    torch.testing.assert_close(transform(narrow, wide), torch.tensor([0, 1.0, 0]))
    assert float(edges(wide).max()) == 1 and not edges(wide).diagonal().any()


def test_irg_takes_the_largest_distance_for_a_constant():
    s, t = random_rows()
    s.requires_grad_()
    largest = float(distances(s).detach().max()) ** 2
    wanted = (distances(s).square() / largest - edges(t)).square().mean()
    found = edge_loss(s, t)
    torch.testing.assert_close(torch.autograd.grad(found, s)[0], torch.autograd.grad(wanted, s)[0])


def test_the_critical_period_ends():
    objective = InformationFlow(epochs=10)
    weights = [objective.early_weight(Progress(i, 200)) for i in (0, 19, 20, 199)]
    assert weights == pytest.approx([100, 100, 70, 100 * 0.7**9])
    assert InformationFlow(decay=1.0).early_weight(Progress(199, 200)) == 100


def test_cckd_embeds_both_sides():
    torch.manual_seed(0)
    objective = CCKD('x', dim=6)
    loss = on_rows(objective, *random_rows(dtype=torch.float32))
    own, wanted = (
        embed(x)
        for embed, x in zip(
            (objective.embed, objective.embed_target),
            random_rows(dtype=torch.float32),
            strict=True,
        )
    )
    torch.testing.assert_close(loss, congruence('taylor')(own, wanted))
    loss.backward()
    assert objective.embed.weight.grad.any() and objective.embed_target.weight.grad.any()
    assert objective.embed.weight.shape == (6, 3)
    assert str(CCKD('x').weight) == '0.003' and str(CCKD(kernel='neighbors').weight) == '0.02'
    frozen = CCKD('x', train_both=False, kernel='neighbors')
    on_rows(frozen, *random_rows(dtype=torch.float32)).backward()
    assert frozen.embed.weight.grad.any() and frozen.embed_target.weight.grad is None
    for options in (dict(kernel='rbf', gamma=1.0), dict(order=4), dict(kernel='bilinear')):
        torch.manual_seed(0)
        other = CCKD('x', dim=6, **options)
        found = float(on_rows(other, *random_rows(dtype=torch.float32)).detach())
        assert found != pytest.approx(float(loss.detach()), rel=1e-6)


def test_default_taps():
    models = [build_model(tiny_classifier(width)) for width in (4, 8)]
    stages = ['backbone.layer1', 'backbone.layer2', 'backbone.layer3']
    wanted = {
        'RKD': ['pool'],
        'PKT': ['pool'],
        'CCKD': ['pool'],
        'DarkRank': ['pool'],
        'TripletDistillation': ['pool'],
        'SP': stages[-1:],
        'GKD': stages,
        'InformationFlow': [*stages, 'pool'],
        'IRG': [*stages[:2], 'pool'],
    }
    for name, make in objectives().items():
        objective = make()
        objective.bind(*models)
        assert [str(tap) for tap in objective.student_taps] == wanted[name], name
    objective = IRG()
    objective.bind(*models)
    assert [str(tap) for tap in objective.teacher_taps] == [*wanted['IRG'], 'head.fc']


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: RKD(distance=0, angle=0), 'nothing is left to teach'),
        (lambda: RKD(angle=-1), 'angle must be'),
        (lambda: RKD(normalize='student'), 'normalize must be one of'),
        (lambda: IRG(vertex=0, edge=0, transform=0), 'nothing is left to teach'),
        (lambda: IRG(reduction='max'), 'reduction must be one of'),
        (lambda: IRG(edge_layers=0), 'edge_layers must be'),
        (
            lambda: IRG('x').bind(nn.Module(), nn.Module()),
            'vertex term compares the logits of classifiers',
        ),
        (lambda: GKD(power=0), 'power must be a whole number'),
        (lambda: GKD(neighbors=0), 'neighbors must be a whole number'),
        (lambda: CCKD(kernel='cubic'), 'kernel must be one of'),
        (lambda: CCKD(order=0), 'order must be'),
        (lambda: CCKD(dim=0), 'dim must be'),
        (lambda: CCKD(gamma=-1), 'gamma must be'),
        (lambda: CCKD('x').setup(None, None), 'Name one tap of each'),
        (lambda: TripletDistillation(low=0.5, high=0.2), 'high must be .* at least 0.5'),
        (lambda: DarkRank(variant='list'), 'variant must be one of'),
        (
            lambda: DarkRank(length=1),
            'length must be a whole number of at least 2, or None, found 1',
        ),
        (lambda: DarkRank(variant='soft', length=7), 'from 2 to 6, found 7'),
        (lambda: DarkRank(variant='soft', length=None), 'from 2 to 6, found None'),
        (lambda: DarkRank(beta=0.5), 'beta must be .* at least 1'),
        (lambda: InformationFlow(decay=0), 'decay must be a finite number above 0 and at most 1'),
        (lambda: InformationFlow(epochs=0), 'epochs must be'),
    ],
)
def test_options_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize('name', objectives())
def test_models_and_layers_that_do_not_fit(name):
    make = objectives()[name]
    messages = dict(
        InformationFlow='has taps of its own for classifiers only',
        TripletDistillation='needs one class an image, which the data of RetinaNet',
    )
    if name in messages:
        detectors = [build_model(tiny_retinanet(width=4)) for _ in range(2)]
        with pytest.raises(ValueError, match=f'{name} {messages[name]}'):
            make().bind(*detectors)
    two = make(['a', 'b'], ['a'])
    trace = make_trace({'a': A, 'b': B}, {'a': A})
    with pytest.raises(ValueError, match=f'{name}.*student.*teacher'):
        ready(two, trace)


def test_irg_needs_equal_classes():
    models = [build_model(tiny_classifier(4, num_classes=k)) for k in (3, 5)]
    from mmkd.probe import levels_at, probe

    objective = IRG()
    objective.bind(*models)
    sides = [
        levels_at(probe(model, taps, 32), taps)
        for model, taps in zip(
            models, (objective.student_taps, objective.teacher_taps), strict=True
        )
    ]
    with pytest.raises(ValueError, match='3 logits and the teacher 5; vertex=0'):
        objective.setup(*sides)


def test_labels_must_be_there():
    with pytest.raises(ValueError, match='needs class labels'):
        on_rows(TripletDistillation('x'), *random_rows())
