"""Maps of both networks at one size, class scores of masks among them."""

import pytest
import torch

from mmkd.functional.mask_scores import MaskScores
from mmkd.functional.resize import resize
from mmkd.map_sizes import at_size, equal_size, whole
from mmkd.testing import make_trace

MASKS = MaskScores(torch.randn(2, 5, 4), torch.randn(2, 5, 8, 12))


def trace(size=(64, 96), teacher_size=None):
    made = make_trace({'a': torch.zeros(2, 1, 1, 1)}, {'a': torch.zeros(1)})
    made.inputs = made.student.inputs = torch.zeros(2, 3, *size)
    made.teacher.inputs = torch.zeros(2, 3, *(teacher_size or size))
    return made


@pytest.mark.parametrize(
    ('resize_to', 'size'),
    [('student', (4, 6)), ('teacher', (8, 12)), ('label', (64, 96))],
)
def test_the_size_of_one_side(resize_to, size):
    student = torch.randn(2, 3, 4, 6)
    for teacher, wanted in ((MASKS, MASKS.at(size)), (torch.randn(2, 3, 8, 12), None)):
        s, t = equal_size('X', student, teacher, trace(), resize_to)
        assert s.shape == t.shape == (2, 3, *size)
        torch.testing.assert_close(t, resize(teacher, size) if wanted is None else wanted)
        torch.testing.assert_close(s, resize(student, size))
    s, t = equal_size('X', MASKS, student, trace(), 'teacher')
    assert torch.equal(s, MASKS.at((4, 6))) and torch.equal(t, student)


def test_without_an_option_they_may_differ_by_a_cell():
    s, t = equal_size('X', torch.randn(2, 3, 7, 11), MASKS, trace())
    assert s.shape == t.shape == (2, 3, 8, 12) and torch.equal(t, MASKS.at())
    with pytest.raises(ValueError, match=r'X: maps differ in size, student \(2, 3, 4, 6\)'):
        equal_size('X', torch.randn(2, 3, 4, 6), MASKS, trace())


def test_padding_of_the_teacher_alone():
    seen = trace((56, 80), (64, 96))
    for teacher in (MASKS, MASKS.at()):
        _, t = equal_size('X', torch.randn(2, 3, 7, 10), teacher, seen)
        torch.testing.assert_close(t, MASKS.at()[..., :7, :10])


def test_anything_but_maps_stays():
    pair = torch.randn(2, 3), torch.randn(2, 3)
    assert all(a is b for a, b in zip(equal_size('X', *pair, trace()), pair, strict=True))
    assert torch.equal(equal_size('X', pair[0], MASKS, trace())[1], MASKS.at())
    x = torch.randn(1, 2, 3, 4)
    assert whole(x) is x is at_size(x, (3, 4)) and torch.equal(whole(MASKS), MASKS.at())
