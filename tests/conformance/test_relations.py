"""What all losses on relations between the images of a batch have in common.

What changes nothing, hard values, batches of one image and of two, maps, and unfit networks.
"""

import pytest
import torch
from relation_objectives import NAMES, relation
from row_toys import LABELS, A, B, on_rows, random_rows

from mmkd.functional.relations import distances, unit
from mmkd.methods.cckd import correlations, neighbor_error
from mmkd.methods.darkrank import ranking_error
from mmkd.methods.gkd import graph_error
from mmkd.methods.information_flow import flow_divergence
from mmkd.methods.irg import edges, relation_error, transform
from mmkd.methods.pkt import transfer_error
from mmkd.methods.rkd import angle_error, distance_error
from mmkd.methods.sp import similarity_error
from mmkd.methods.triplet_distillation import TripletDistillation
from mmkd.teacher import build_model
from mmkd.testing import make_trace, ready, tiny_classifier, tiny_retinanet


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


def on_maps(objective, sizes=((3, 4, 6), (5, 2, 2)), b=4):
    torch.manual_seed(0)
    student, teacher = (torch.rand(b, *size) for size in sizes)
    student.requires_grad_()
    loss = on_rows(objective, student, teacher, torch.arange(b) % 2)
    return loss, torch.autograd.grad(loss, student)[0]


@pytest.mark.parametrize('name', NAMES)
def test_maps_of_any_width_and_size(name):
    loss, gradient = on_maps(relation(name, 'x'))
    assert float(loss.detach()) > 0 and gradient.any()


@pytest.mark.parametrize('b', [1, 2])
@pytest.mark.parametrize('name', NAMES)
def test_one_image_says_nothing_and_two_break_nothing(name, b):
    loss, gradient = on_maps(relation(name, 'x'), b=b)
    assert gradient.isfinite().all()
    nothing = b == 1 or name in ('GKD', 'IRG', 'DarkRank', 'TripletDistillation', 'RKD')
    if name == 'CCKD' and b == 2:
        assert loss.isfinite()
    else:
        assert (abs(float(loss.detach())) < 1e-6) == nothing


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
    for name in NAMES:
        objective = relation(name)
        objective.bind(*models)
        assert [str(tap) for tap in objective.student_taps] == wanted[name], name


@pytest.mark.parametrize('name', NAMES)
def test_models_and_layers_that_do_not_fit(name):
    messages = dict(
        InformationFlow='has taps of its own for classifiers only',
        TripletDistillation='needs one class an image, which the data of RetinaNet',
    )
    if name in messages:
        detectors = [build_model(tiny_retinanet(width=4)) for _ in range(2)]
        with pytest.raises(ValueError, match=f'{name} {messages[name]}'):
            relation(name).bind(*detectors)
    two = relation(name, ['a', 'b'], ['a'])
    trace = make_trace({'a': A, 'b': B}, {'a': A})
    with pytest.raises(ValueError, match=f'{name}.*student.*teacher'):
        ready(two, trace)
