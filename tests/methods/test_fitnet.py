"""FitNet: worked numbers, and maps of unequal size."""

import pytest
import torch
from map_toys import FS, FT, on_maps

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
