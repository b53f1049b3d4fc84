"""Cuts: which stage they show, and which are refused; without a probe there are no exits."""

import pytest

from mmkd.levels import Level
from mmkd.methods.byot import BYOT
from mmkd.rows.exits import make_exits, positions


def stages():
    """The four stages of a ResNet-18 on 224 pixels."""
    shapes = [(64 << i, 56 >> i, 56 >> i) for i in range(4)]
    return [Level(shape, 4 << i, f'backbone.layer{i + 1}') for i, shape in enumerate(shapes)]


def cut(*shape, tap='backbone[0]'):
    return Level(shape, None, tap)


def test_cuts_are_found_by_their_shapes_or_names():
    found = positions('It', [cut(64, 56, 56), cut(256, 14, 14)], stages())
    assert found == [0, 2]
    same = [Level((8, 4, 4), 4, 'a'), Level((8, 4, 4), 4, 'b'), Level((8, 2, 2), 8, 'c')]
    assert positions('It', [cut(8, 4, 4, tap='b')], same) == [1]
    assert positions('It', [cut(8, 4, 4, tap='x'), cut(8, 4, 4, tap='y')], same) == [0, 1]


@pytest.mark.parametrize(
    ('cuts', 'message'),
    [
        ([], 'It needs at least one cut'),
        ([(9, 56, 56)], r'cut backbone\[0\] shows 9x56x56, which is the output of no stage; the'),
        ([(128, 28, 28), (64, 56, 56)], 'deeper one after the other, .* stage 0 behind stage 1'),
        ([(64, 56, 56), (64, 56, 56)], 'stage 0 behind stage 0'),
        ([(512, 7, 7)], 'shows the last stage, .* behind stages 0 to 2'),
    ],
)
def test_refused_cuts(cuts, message):
    with pytest.raises(ValueError, match=message):
        positions('It', [cut(*shape) for shape in cuts], stages())


def test_exits_need_the_shapes_of_a_probe():
    with pytest.raises(ValueError, match='stages of the student could not be probed'):
        make_exits(BYOT(), None, 3)
