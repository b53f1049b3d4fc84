"""Pyramid levels: who is compared with whom."""

import pytest

from mmkd.levels import Level, pair_levels


def pyramid(*strides, channels=8):
    return [Level((channels, 256 // s, 256 // s), s, 'neck') for s in strides]


def test_equal_strides_are_paired_whatever_their_position():
    assert pair_levels(pyramid(4, 8, 16), pyramid(4, 8, 16)) == [(0, 0), (1, 1), (2, 2)]
    assert pair_levels(pyramid(32, 16, 8), pyramid(8, 16, 32)) == [(0, 2), (1, 1), (2, 0)]


def test_several_maps_of_one_stride_keep_their_order():
    student = pyramid(4, 8, 8, 8)
    assert pair_levels(student, pyramid(4, 8, 8, 8)) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert pair_levels(student, pyramid(8, 8, 8, 4))[0] == (0, 3)


def test_levels_without_partner_are_refused_with_both_lists():
    with pytest.raises(ValueError, match=r'4, 8, 16; teacher strides: 8, 16, 32.*common') as error:
        pair_levels(pyramid(4, 8, 16), pyramid(8, 16, 32), owner='FGFI')
    assert str(error.value).startswith('FGFI')
    with pytest.raises(ValueError, match='do not pair up'):
        pair_levels(pyramid(4, 8), pyramid(4, 8, 16))


def test_common_leaves_them_out():
    assert pair_levels(pyramid(4, 8, 16), pyramid(8, 16, 32), 'common') == [(1, 0), (2, 1)]
    with pytest.raises(ValueError, match='do not pair up'):
        pair_levels(pyramid(4, 8), pyramid(16, 32), 'common')


def test_two_single_maps_of_unequal_stride_are_told_of_resize():
    wanted = r"CWD: the student's 'x' has stride 8 and the teacher's 'y' 16; .* resize='student'"
    student, teacher = Level((4, 8, 8), 8, 'x'), Level((4, 4, 4), 16, 'y')
    with pytest.raises(ValueError, match=wanted):
        pair_levels([student], [teacher], owner='CWD')


def test_explicit_pairs_override_the_order_but_not_the_strides():
    pairs = [(0, 1), (1, 0)]
    assert pair_levels(pyramid(8, 8), pyramid(8, 8), pairs) == pairs
    with pytest.raises(ValueError, match='strides 4 and 8'):
        pair_levels(pyramid(4), pyramid(8), [(0, 0)])
    assert pair_levels(pyramid(4), pyramid(8), [(0, 0)], any_stride=True) == [(0, 0)]


@pytest.mark.parametrize(
    ('level_map', 'message'),
    [
        ([(0, 5)], r'pair \(0, 5\) does not exist: the student has 2 levels, the teacher 2'),
        ([(-1, 0)], 'does not exist'),
        ([], 'pairs nothing'),
        ('nearest', 'must be None'),
        ([0, 1], 'must be None'),
    ],
)
def test_bad_pairs_are_refused(level_map, message):
    with pytest.raises(ValueError, match=message):
        pair_levels(pyramid(4, 8), pyramid(4, 8), level_map)


def test_resizing_pairs_by_position():
    assert pair_levels(pyramid(4, 8), pyramid(8, 16), any_stride=True) == [(0, 0), (1, 1)]
    with pytest.raises(ValueError, match='do not pair up'):
        pair_levels(pyramid(4), pyramid(8, 16), any_stride=True)


def test_vectors_and_tokens_are_paired_by_position():
    vectors = [Level((10,), None), Level((49, 12), None)]
    assert pair_levels(vectors, vectors) == [(0, 0), (1, 1)]
    assert [level.channels for level in vectors] == [10, 12]
    assert pyramid(4, channels=7)[0].channels == 7
    with pytest.raises(ValueError, match='strides: none, none'):
        pair_levels(vectors, vectors[:1])
