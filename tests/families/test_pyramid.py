"""Default taps of methods that compare the pyramids of two detectors."""

import pytest
from pyramid_toys import toy
from torch import nn

from mmkd.families.comparable import Misfit
from mmkd.families.pyramid import among, bind_pyramid, check_maps, tap_beside
from mmkd.levels import Level
from mmkd.methods.fgfi import FGFI
from mmkd.tap import parse_taps


def taps_of(objective):
    return [str(tap) for tap in (*objective.student_taps, *objective.teacher_taps)]


@pytest.mark.parametrize(
    ('student', 'teacher', 'levels', 'wanted'),
    [
        (toy(), toy(), None, 'neck'),
        (toy(), toy('dense'), 3, 'neck[0:3]'),
        (toy(neck=False), toy(), None, 'backbone'),
        (toy(), toy(neck=False), 2, 'backbone[0:2]'),
    ],
)
def test_an_objective_without_taps_gets_the_pyramid(student, teacher, levels, wanted):
    objective = FGFI()
    bind_pyramid(objective, student, teacher, levels)
    assert taps_of(objective) == [wanted, wanted]


def test_named_taps_are_left_alone():
    objective = FGFI(student='neck[1]', teacher='backbone[2]')
    bind_pyramid(objective, toy(), toy())
    assert taps_of(objective) == ['neck[1]', 'backbone[2]']


def test_other_families_are_refused():
    with pytest.raises(Misfit, match='FGFI works for .*, but the student is Module .*segmentor'):
        bind_pyramid(FGFI(), toy('segmentor'), toy())
    bind_pyramid(FGFI(), nn.Identity(), toy())  # of a family of its own: the user may know


def test_vectors_are_no_maps():
    maps = [Level((8, 4, 4), 16, 'neck')]
    check_maps('FGD', maps, maps, None)
    with pytest.raises(ValueError, match="FGD compares feature maps, but 'head.fc' gives .* KD"):
        check_maps('FGD', maps, [Level((10,), None, 'head.fc')])


def test_more_taps_than_the_pyramid():
    objective = FGFI()
    bind_pyramid(objective, toy(), toy())
    more = parse_taps(['neck', 'roi_head@in[1]']), parse_taps('rpn_head')
    pyramid = tap_beside(objective, more)
    assert pyramid == ({'neck'}, {'neck'})
    assert taps_of(objective) == ['neck', 'roi_head@in[1]', 'neck', 'rpn_head']
    levels = [Level((8, 4, 4), 16, 'neck'), Level((5,), None, 'roi_head@in[1]')]
    assert among(levels, pyramid[0]) == levels[:1]
    assert among(None, pyramid[0]) is None
