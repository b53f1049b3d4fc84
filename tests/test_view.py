"""What an objective may show, and that ours do."""

import pytest
import torch

from mmkd.objective import Objective
from mmkd.view import Boxes, View


def test_an_objective_shows_nothing_by_default():
    assert Objective().views(None) == []


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(maps=torch.zeros(2, 1, 3, 3)), 'must be .N, h, w.'),
        (dict(maps=torch.zeros(1, 3, 3), kind='colour'), "kind 'colour'"),
        (dict(maps=torch.zeros(1, 3, 3), side='pupil'), "'student', 'teacher' or ''"),
    ],
)
def test_refused_views(options, message):
    with pytest.raises(ValueError, match=message):
        View('attention', **options)


def test_refused_boxes():
    empty = torch.zeros(0)
    with pytest.raises(ValueError, match=r'\(R, 5\)'):
        Boxes('RoIs', torch.zeros(3, 4), empty, empty)
