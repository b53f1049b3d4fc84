"""Guidance routes, against the equation written out and on maps of many sizes."""

import pytest
import torch
from torch import nn

from mmkd.distiller import Distiller
from mmkd.methods.guidance_route import GuidanceRoute, route_error
from mmkd.teacher import Teacher, build_model
from mmkd.testing import ToyNet, make_trace, ready, tiny_classifier

U, V = torch.tensor([1.0, -1.0, 0.5]), torch.tensor([0.5, -2.0, -0.5])


def maps(*sizes, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, channels, *size, generator=generator) for size in sizes]


def on_maps(objective, student, teacher):
    """Set up for lists of maps at the tap 'a' and run once."""
    objective.bind(nn.Module(), nn.Module())
    trace = make_trace(dict(a=student), dict(a=teacher))
    torch.manual_seed(0)
    return ready(objective, trace)(trace)


@pytest.mark.parametrize(
    ('eta', 'total', 'mean'), [(0.25, 1.0, 1 / 3), (1.0, 2.5, 2.5 / 3), (0.0, 0.5, 0.5 / 3)]
)
def test_the_error_of_three_numbers(eta, total, mean):
    """|u - v| is .5, 1, 1, of which the last two count eta times."""
    found = route_error(U, V, eta)
    assert found.tolist() == pytest.approx([0.5, eta, eta])
    assert float(found.sum()) == pytest.approx(total)
    assert float(found.mean()) == pytest.approx(mean)


def test_zero_counts_as_positive():
    assert route_error(torch.ones(1), torch.zeros(1)).tolist() == [1.0]


def test_the_target_decides_about_eta():
    assert float(route_error(U, V).sum()) != float(route_error(V, U).sum())


@pytest.mark.parametrize('direction', ['student', 'teacher'])
def test_a_route_is_the_equation_written_out(direction):
    (s,), (t,) = maps((3, 2), channels=2), maps((3, 2), channels=4, seed=1)
    objective = GuidanceRoute('a', direction=direction, eta=0.5)
    found = float(on_maps(objective, [s], [t])['loss'].detach())
    source, target = (s, t) if direction == 'student' else (t, s)
    conv = objective.adapters['0'].conv
    weight, bias = conv.weight.detach().double()[:, :, 0, 0], conv.bias.detach().double()
    assert weight.shape == (target.shape[1], source.shape[1])
    total = 0.0
    for n in range(2):
        for y in range(3):
            for x in range(2):
                projected = weight @ source[n, :, y, x].double() + bias
                for r, v in zip(projected.tolist(), target[n, :, y, x].tolist(), strict=True):
                    total += (1 if v >= 0 else 0.5) * abs(r - v)
    assert found == pytest.approx(total / target.numel(), rel=1e-5)


@pytest.mark.parametrize('direction', ['student', 'teacher'])
def test_the_student_learns_and_the_teacher_does_not(direction):
    (s,), (t,) = maps((4, 4)), maps((4, 4), channels=5, seed=1)
    s.requires_grad_(), t.requires_grad_()
    objective = GuidanceRoute('a', direction=direction)
    on_maps(objective, [s], [t])['loss'].backward()
    assert s.grad.any() and t.grad is None
    assert objective.adapters['0'].conv.weight.grad.any()


def test_only_a_projected_teacher_has_a_trivial_solution():
    """Projection and student 0: the loss is 0, and the logged length says why."""
    s, t = torch.zeros(2, 3, 4, 4), maps((4, 4))[0]
    results = {}
    for direction in ('student', 'teacher'):
        objective = GuidanceRoute('a', direction=direction)
        before = on_maps(objective, [s], [t])
        length = objective.adapters['0'].conv.weight.norm()
        for parameter in objective.parameters():
            nn.init.zeros_(parameter)
        results[direction] = objective(make_trace(dict(a=[s]), dict(a=[t])))
    assert float(results['student']['loss'].detach()) > 0.1 and 'norm_0_0' not in results['student']
    assert float(before['norm_0_0']) == pytest.approx(float(length.detach()))
    found = {key: float(value.detach()) for key, value in results['teacher'].items()}
    assert found == dict(loss=0, norm_0_0=0)


SIZES_S, SIZES_T = [(8, 8), (4, 4), (2, 2)], [(16, 16), (4, 4), (4, 4), (2, 2)]


def test_routes_join_all_maps_of_equal_size_and_their_losses_add_up():
    student, teacher = maps(*SIZES_S), maps(*SIZES_T, seed=1)
    every = GuidanceRoute('a')
    total = on_maps(every, student, teacher)['loss']
    assert every.pairs == [(1, 1), (1, 2), (2, 3)] and len(every.adapters) == 3
    parts = 0.0
    for k, route in enumerate(every.pairs):
        one = GuidanceRoute('a', routes=[route])
        on_maps(one, student, teacher)
        assert one.pairs == [route] and len(one.adapters) == 1
        one.adapters['0'].load_state_dict(every.adapters[f'{k}'].state_dict())
        parts += float(one(make_trace(dict(a=student), dict(a=teacher)))['loss'].detach())
    assert float(total.detach()) == pytest.approx(parts, rel=1e-6)


def test_no_pair_of_equal_size_is_an_error_with_the_sizes_of_both_sides():
    with pytest.raises(ValueError, match='Student: a 3x8x8 .*Teacher: a 3x4x4'):
        on_maps(GuidanceRoute('a'), maps((8, 8)), maps((4, 4)))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(direction='both'), "one of .'student', 'teacher'., found 'both'"),
        (dict(eta=-1), 'eta must be a finite number of at least 0, found -1'),
        (dict(routes=[]), r'different pairs .* found \[\]'),
        (dict(routes=[(0, 0), (0, 0)]), 'different pairs'),
        (dict(routes=[0, 1]), r'found \[0, 1\]'),
        (dict(routes=[(0, 1)]), r'no route \(0, 1\): the student has 1 maps, the teacher 1'),
        (dict(routes=[(-1, 0)]), r'no route \(-1, 0\)'),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        on_maps(GuidanceRoute('a', **options), maps((4, 4)), maps((4, 4)))


def test_a_route_between_unequal_sizes_is_refused():
    with pytest.raises(ValueError, match=r'route \(0, 0\) joins maps of unequal size. Student: a'):
        on_maps(GuidanceRoute('a', routes=[(0, 0)]), maps((8, 8), (4, 4)), maps((4, 4)))


def test_vectors_are_no_ends_of_routes():
    with pytest.raises(ValueError, match='no map of the student'):
        on_maps(GuidanceRoute('a'), [torch.zeros(2, 3)], [torch.zeros(2, 3)])


def test_the_winner_of_a_search(tmp_path):
    path = tmp_path / 'routes.json'
    path.write_text('{"winner": [1, 2]}')
    assert GuidanceRoute('a', routes=str(path)).routes == [(1, 2)]
    for text in ('{}', '[', '{"winner": 3}'):
        path.write_text(text)
        with pytest.raises(ValueError, match='is no result of a search .*Make one with'):
            GuidanceRoute('a', routes=str(path))
    with pytest.raises(ValueError, match=r"routes='none' is no result of a search \(FileNotFound"):
        GuidanceRoute('a', routes='none')


def test_maps_that_no_probe_saw_are_refused():
    with pytest.raises(ValueError, match='could not be probed'):
        GuidanceRoute('a').setup(None, None)


def bound(network, other, **options):
    """A GuidanceRoute between a student and a teacher, with its routes found."""
    teacher = Teacher(other, checkpoint='random')
    objectives = dict(it=GuidanceRoute(**options))
    return Distiller(network, objectives, teacher, preflight=False).objectives['it']


def test_without_taps_stages_of_classifiers_with_taps_maps_of_any_model():
    networks = [build_model(tiny_classifier(width)) for width in (4, 8)]
    own = bound(*networks)
    assert own.pairs == [(0, 0), (1, 1), (2, 2)]
    assert own.adapters['1'].describe() == '1x1 conv 8 -> 16'
    reverse = bound(*networks, direction='teacher', routes=[(1, 1)])
    assert reverse.adapters['0'].describe() == '1x1 conv 16 -> 8'
    assert bound(ToyNet(4), ToyNet(6), student='neck').pairs == [(0, 0), (1, 1)]
    with pytest.raises(ValueError, match='taps of its own for classifiers only'):
        bound(*(nn.Sequential(nn.Conv2d(3, 3, 1)) for _ in range(2)))


def test_the_weight_falls_from_the_published_value():
    weight = GuidanceRoute('a', weight=dict(decay='linear')).weight
    assert [weight(x) for x in (0.0, 0.5, 1.0)] == pytest.approx([0.6, 0.3, 0.0])
