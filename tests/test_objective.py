"""The two base classes: what a method author may rely on."""

import pytest
import torch
from torch import nn

from mmkd.levels import Level
from mmkd.methods import names
from mmkd.methods.at import AT
from mmkd.objective import Objective, PairObjective
from mmkd.options import options_of
from mmkd.registry import MODELS
from mmkd.tap import TapError
from mmkd.testing import ToyNet, make_trace, ready


class Sizes(PairObjective):
    """Remembers what it was asked to compare."""

    taps = 'neck'

    def compare(self, student, teacher):
        self.seen = (student, teacher)
        return (student - teacher).abs().mean()


def maps(*shapes):
    return [torch.randn(2, *shape) for shape in shapes]


def test_taps_default_to_the_class_and_the_teacher_to_the_student():
    assert [str(t) for t in Sizes().teacher_taps] == ['neck']
    mine = Sizes(student=['backbone.layer1', 'neck[0]'])
    assert [str(t) for t in mine.teacher_taps] == ['backbone.layer1', 'neck[0]']
    both = Sizes(student='neck', teacher='backbone')
    assert [str(t) for t in both.teacher_taps] == ['backbone']

    class Alone(Objective):
        taps, needs_teacher = 'neck', False

    assert Alone().teacher_taps == ()


def test_what_is_not_implemented_says_so():
    with pytest.raises(NotImplementedError, match='Objective has no forward'):
        Objective()(None)
    trace = make_trace({'neck': maps((3, 4, 4))}, {'neck': maps((3, 4, 4))})
    with pytest.raises(NotImplementedError, match='PairObjective has no compare'):
        ready(PairObjective(student='neck'), trace)(trace)


@pytest.mark.parametrize(
    ('adapt', 'widths', 'wanted'),
    [
        ('auto', (3, 3), None),
        ('auto', (3, 5), '1x1 conv 3 -> 5'),
        ('conv1x1', (3, 3), '1x1 conv 3 -> 3'),
        ('conv3x3', (3, 5), '3x3 conv 3 -> 5'),
        ('conv1x1_bn_relu', (3, 5), '1x1 conv 3 -> 5 + BN + ReLU'),
        (None, (3, 3), None),
    ],
)
def test_adapters(adapt, widths, wanted):
    sides = [{'neck': maps((c, 4, 4))} for c in widths]
    trace = make_trace(*sides)
    it = ready(Sizes(adapt=adapt), trace)
    adapter = it.adapter(0)
    assert (adapter and adapter.describe()) == wanted
    assert it(trace)['loss'].requires_grad == (adapter is not None)
    assert it.describe() == [f'student level 0 <- teacher level 0: {wanted or "no adapter"}']


@pytest.mark.parametrize('adapt', [None, 'auto'])
def test_maps_of_any_width_are_paired_without_an_adapter(adapt):
    class AnyWidth(Sizes):
        adapts_width = False

    trace = make_trace({'neck': maps((3, 4, 4))}, {'neck': maps((5, 4, 4))})
    it = ready(AnyWidth(adapt=adapt), trace)
    assert [(s.shape[1], t.shape[1]) for s, t in it.maps(trace)] == [(3, 5)]
    assert it.adapter(0) is None
    it.setup(None, None)  # taps that could not be probed
    assert it.pairs == [(0, 0)]


def test_vectors_get_linear_adapters_and_pass_otherwise():
    trace = make_trace({'head.fc': torch.randn(2, 7)}, {'head.fc': torch.randn(2, 9)})
    it = ready(Sizes(student='head.fc'), trace)
    assert it.adapter(0).describe() == 'linear 7 -> 9'
    assert it(trace)['loss'].isfinite()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (
            dict(adapt='conv5x5'),
            "adapt must be one of .'auto', None, 'conv1x1'",
        ),
        (dict(adapt=None), "has 3 channels and teacher 'neck' 5"),
    ],
)
def test_adapters_that_cannot_be(options, message):
    trace = make_trace({'neck': maps((3, 4, 4))}, {'neck': maps((5, 4, 4))})
    with pytest.raises(ValueError, match=message):
        ready(Sizes(**options), trace)


def test_the_teacher_is_detached():
    teacher = torch.randn(2, 3, 4, 4, requires_grad=True)
    trace = make_trace({'neck': maps((3, 4, 4))}, {'neck': teacher})
    it = ready(Sizes(adapt='conv1x1'), trace)
    it(trace)['loss'].backward()
    assert teacher.grad is None


def test_one_cell_of_difference_is_rounding_and_more_is_an_error():
    near = make_trace(
        {'neck': maps((3, 15, 19))}, {'neck': maps((3, 16, 20))}, inputs=torch.zeros(2, 3, 64, 80)
    )
    it = ready(Sizes(), near)
    it(near)
    assert it.seen[0].shape == it.seen[1].shape == (2, 3, 16, 20)
    it = Sizes(resize=None)
    it.pairs = [(0, 0)]
    far = make_trace({'neck': maps((3, 4, 4))}, {'neck': maps((3, 8, 8))})
    with pytest.raises(
        ValueError, match=r'student \(2, 3, 4, 4\) and teacher \(2, 3, 8, 8\). Set resize='
    ):
        it(far)


@pytest.mark.parametrize(('resize', 'size'), [('student', 6), ('teacher', 8), ('label', 32)])
@pytest.mark.parametrize('align_corners', [False, True])
def test_resize_brings_both_to_the_size_asked_for(resize, size, align_corners):
    class Student(nn.Module):
        pass

    student, teacher = maps((3, 6, 6))[0], maps((3, 8, 8))[0]
    trace = make_trace({'neck': student}, {'neck': teacher}, inputs=torch.zeros(2, 3, 32, 32))
    it, model = Sizes(resize=resize), Student()
    model.align_corners = align_corners
    it.bind(model, None)
    ready(it, trace)(trace)
    for found, original in zip(it.seen, (student, teacher), strict=True):
        wanted = original
        if original.shape[2] != size:
            wanted = nn.functional.interpolate(
                original, (size, size), mode='bilinear', align_corners=align_corners
            )
        torch.testing.assert_close(found, wanted)


def test_a_tap_that_fell_silent_is_named():
    trace = make_trace({'backbone': maps((3, 4, 4))}, {'neck': maps((3, 4, 4))})
    it = Sizes()
    it.pairs = [(0, 0)]
    with pytest.raises(TapError, match="'neck' of Module saw nothing"):
        it(trace)


def test_resize_and_weight_are_checked():
    with pytest.raises(ValueError, match='resize must be one of'):
        Sizes(resize='both')
    for weight in (-1, float('nan')):
        with pytest.raises(ValueError, match='at least 0'):
            Sizes(weight=weight)


def test_a_trace_without_networks():
    trace = make_trace({'a': torch.ones(3, 2, 4, 6)}, progress=0.25)
    assert trace.inputs.shape == (3, 3, 32, 48) and len(trace.samples) == 3
    assert trace.progress == 0.25 and trace.teachers == {}
    with pytest.raises(TapError, match='A trace without a teacher was asked for one'):
        trace.teacher  # noqa: B018
    assert isinstance(ToyNet(), nn.Module)


def test_typed_widths_must_agree_with_what_the_probe_saw():
    levels = [Level((8, 4, 4), 8, 'x')], [Level((16, 4, 4), 8, 'y')]
    with pytest.raises(ValueError, match='in_channels=5, but the tap shows 8 channels'):
        PairObjective('x', in_channels=5, out_channels=16).check_widths(*levels)
    with pytest.raises(ValueError, match='out_channels=7, but the tap shows 16 channels'):
        PairObjective('x', out_channels=7).check_widths(*levels)
    PairObjective('x', in_channels=8, out_channels=16).check_widths(*levels)
    PairObjective('x', in_channels=5, out_channels=5).check_widths(None, None)


def test_one_objective_listens_to_one_teacher():
    with pytest.raises(
        TypeError, match=r"AT: teacher_name must be .* found \['a', 'b'\]. For several"
    ):
        AT(teacher_name=['a', 'b'])
    for wrong in ([], ['a', 1], 3):
        with pytest.raises(TypeError, match='teacher_name must be the name of one teacher'):
            AT(teacher_name=wrong)
    assert AT(teacher_name=['a']).teacher_names == AT(teacher_name='a').teacher_names == ('a',)
    with pytest.raises(TypeError, match="AT: learner must be 'student' or the name of a peer"):
        AT(learner=1)


@pytest.mark.parametrize('name', names())
def test_every_method_lets_any_network_learn(name):
    assert 'learner' in options_of(MODELS.get(f'mmkd.{name}'))
