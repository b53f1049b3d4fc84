"""The first step of a run, against what was planned."""

import pytest
import torch
from plan_toys import distil, step
from torch import nn

from mmkd.levels import Level
from mmkd.methods.cwd import CWD
from mmkd.plan.first_step import first_step_differs
from mmkd.testing import ToyNet, classification_batch, make_trace


class Broken(ToyNet):
    """Its neck cannot run without a batch of data."""

    def extract_feat(self, inputs):
        if not getattr(self, 'mended', False):
            raise AttributeError('gt_instances')
        return super().extract_feat(inputs)


def test_the_first_step_is_compared_with_the_plan():
    student = ToyNet()
    found = distil(student, ToyNet(), student='neck')
    student.neck.down = nn.Conv2d(4, 4, 3, stride=4, padding=1)
    message = r"student's tap 'neck' gave 4x8x8 \(stride 8\), 4x2x2 .* planned with"
    with pytest.raises(ValueError, match=message):
        step(found, classification_batch(2, (64, 64)))
    found = distil(student := ToyNet(), ToyNet(), student='neck')
    step(found, classification_batch(2, (64, 64)))
    student.neck.down = nn.Conv2d(4, 4, 3, stride=4, padding=1)
    with pytest.raises(ValueError, match='maps differ in size'):  # only the first is compared
        step(found, classification_batch(2, (64, 64)))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(in_channels=4, out_channels=4), r"gave 2 maps in the first step.*'neck\[0\]'"),
        (dict(student='neck[0]', in_channels=7, out_channels=4), 'set in_channels=4'),
    ],
)
def test_typed_widths_never_pair_fewer_levels_than_a_step_delivers(options, message):
    student = Broken()
    found = distil(student, ToyNet(), **dict(student='neck') | options)
    student.mended = True
    with pytest.raises(ValueError, match=message):
        step(found)


def test_maps_without_channels_that_were_not_probed_are_counted_too():
    student = Broken()
    found = distil(student, ToyNet(), 'AT', student='neck', teacher='neck[0]')
    student.mended = True
    with pytest.raises(ValueError, match='gave 2 maps in the first step, but they could not'):
        step(found)


def sides(*maps):
    """A trace whose student and teacher show these maps at the tap ``neck``."""
    return make_trace(dict(neck=list(maps)), dict(neck=[maps[0]]))


def planned(*shapes):
    return [Level(shape, 8 * 2**i, 'neck') for i, shape in enumerate(shapes)]


def test_number_width_and_stride_are_compared():
    objective = CWD(student='neck', teacher='neck')
    trace = sides(torch.zeros(2, 4, 8, 8), torch.zeros(2, 4, 4, 4))
    teacher = planned((4, 8, 8))
    good = planned((4, 8, 8), (4, 4, 4))
    assert first_step_differs(objective, trace, [good, teacher]) == ''
    coarser = [*planned((4, 8, 8)), Level((4, 2, 2), 32, 'neck')]
    for wrong in (planned((4, 8, 8)), planned((5, 8, 8), (4, 4, 4)), coarser):
        text = first_step_differs(objective, trace, [wrong, teacher])
        assert text.startswith("the student's tap 'neck' gave 4x8x8"), text
    text = first_step_differs(objective, trace, [good, planned((9, 8, 8))])
    assert text.startswith("the teacher's tap 'neck' gave 4x8x8")


def test_a_tap_that_only_training_reaches_is_not_judged():
    objective = CWD(student='neck', teacher='neck')
    trace = sides(torch.zeros(2, 4, 8, 8))
    other = [Level((4, 8, 8), 8, 'backbone')]
    assert first_step_differs(objective, trace, [other, other]) == ''
