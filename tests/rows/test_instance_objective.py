"""The base class of losses on relations: what its author may rely on."""

import pytest
import torch

from mmkd import InstanceObjective
from mmkd.options import options_of
from mmkd.teacher import build_model
from mmkd.testing import boxes, make_trace, ready, tiny_classifier


class Rows(InstanceObjective):
    """Remembers the shapes that it was asked to compare."""

    def compare(self, student_rows, teacher_rows):
        self.shapes = [*getattr(self, 'shapes', []), (student_rows.shape, teacher_rows.shape)]
        return (student_rows.mean() - teacher_rows.mean()).square()


class Flat(Rows):
    pooled = False


def test_layers_of_any_width_are_compared_one_by_one_and_summed():
    student = {'a': torch.randn(4, 3, 2, 2, requires_grad=True), 'b': torch.randn(4, 5)}
    teacher = {'a': torch.randn(4, 7, 3, 3, requires_grad=True), 'b': torch.randn(4, 6)}
    trace = make_trace(student, teacher)
    objective = ready(Rows(['a', 'b']), trace)
    loss = objective(trace)['loss']
    assert objective.shapes == [((4, 3), (4, 7)), ((4, 5), (4, 6))]
    wanted = sum((student[k].mean() - teacher[k].mean()).square() for k in 'ab')
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    assert student['a'].grad is not None and teacher['a'].grad is None


def test_maps_are_averaged_over_places_or_flattened():
    maps = {'a': torch.randn(2, 3, 2, 2)}
    for kind, width in ((Rows, 3), (Flat, 12)):
        trace = make_trace(maps, maps)
        objective = ready(kind('a'), trace)
        objective(trace)
        assert objective.shapes == [((2, width), (2, width))]


def test_rows_may_be_boxes():
    maps = {'a': torch.randn(1, 3, 8, 8)}
    trace = make_trace(maps, maps, samples=boxes([[0, 0, 16, 16], [8, 8, 40, 40], [0, 8, 24, 32]]))
    objective = ready(Rows('a', instances='boxes'), trace)
    objective(trace)
    assert objective.shapes == [((3, 3), (3, 3))]
    assert objective.describe() == ['compares ground-truth boxes']


def test_a_classifier_needs_no_taps_and_a_method_may_choose_its_own():
    class Stages(Rows):
        @staticmethod
        def taps_of(model):
            return ['backbone[0]', 'backbone[1]']

    model = build_model(tiny_classifier())
    for kind, wanted in ((Rows, ['pool']), (Stages, ['backbone[0]', 'backbone[1]'])):
        objective = kind()
        objective.bind(model, model)
        assert [str(tap) for tap in objective.student_taps] == wanted


def test_options_are_those_of_every_objective_and_two_more():
    assert list(options_of(Rows))[-2:] == ['instances', 'gather']
    assert {'student', 'teacher', 'weight', 'teacher_name'} < set(options_of(Rows))
    with pytest.raises(ValueError, match="Rows: instances must be one of .*'boxes'"):
        Rows('a', instances='objects')


def test_what_is_not_implemented_says_so():
    maps = {'a': torch.randn(2, 3)}
    trace = make_trace(maps, maps)
    with pytest.raises(NotImplementedError, match='InstanceObjective has no compare.student_rows'):
        ready(InstanceObjective('a'), trace)(trace)
