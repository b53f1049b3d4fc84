"""FitNet: worked numbers, and maps of unequal size."""

import pytest
import torch
from map_toys import FS, FT, on_maps

from mmkd.levels import Level
from mmkd.methods.fitnet import FitNet, hint_error


def test_worked_numbers():
    assert float(hint_error(FS, FT)) == pytest.approx(1.5625)
    assert float(hint_error(FS, FT, 'paper')) == pytest.approx(6.25)
    found = on_maps(FitNet('a', adapt='auto'), [FS], [FT])
    assert float(found['loss']) == pytest.approx(1.5625)
    assert float(on_maps(FitNet('a', adapt='auto', variant='paper'), [FS], [FT])['loss']) == 6.25
    assert float(hint_error(FS, FT, 'l1')) == pytest.approx(float((FS - FT).abs().mean()))


def test_unequal_maps_is_taken_at_the_size_of_the_teacher():
    torch.manual_seed(0)
    found = on_maps(FitNet('a'), [torch.randn(2, 3, 8, 8)], [torch.randn(2, 5, 4, 4)])
    assert float(found['loss'].detach()) > 0


def test_a_window_of_tolerance():
    """A peak of 4 that is one cell aside: four of nine windows of 2 x 2 differ, by 1."""
    first, second = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    first[..., 1, 1], second[..., 1, 2] = 4, 4

    def loss(tolerance, student, teacher):
        objective = FitNet('a', adapt=None, tolerance=tolerance)
        return float(on_maps(objective, [student], [teacher])['loss'])

    assert loss(1, first, second) == 2
    assert loss(2, first, second) == pytest.approx(4 / 9)
    assert loss(3, first, first) == 0
    flipped = loss(2, first.flip(3), second.flip(3))
    assert flipped == pytest.approx(4 / 9)
    with pytest.raises(ValueError, match=r'tolerance=5 averages .* maps have \(4, 4\)'):
        loss(5, first, second)
    objective = FitNet('a', tolerance=2)
    with pytest.raises(ValueError, match=r'tolerance=2 averages .* maps have \(1, 1\)'):
        objective.setup([Level((3, 1, 1), 256, 'a')], [Level((3, 1, 1), 256, 'a')])
