"""Resizing looks at every cell of the larger map."""

import pytest
import torch
from torch.nn import functional as F

from mmkd.functional.resize import resize


def test_a_map_that_shrinks_is_averaged():
    x = torch.rand(2, 3, 32, 24)
    torch.testing.assert_close(resize(x, (8, 6)), F.avg_pool2d(x, 4))
    torch.testing.assert_close(resize(x, (8, 6), align_corners=True), F.avg_pool2d(x, 4))
    spike = torch.zeros(1, 1, 32, 32)
    spike[..., 0, 0] = 16.0  # bilinear interpolation to 8 x 8 does not see it
    assert F.interpolate(spike, (8, 8), mode='bilinear')[..., 0, 0] == 0
    assert resize(spike, (8, 8))[..., 0, 0] == 1


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('sizes', [(97, 49), (33, 17), (16, 8), (100, 49), (33, 8), (5, 1), (7, 6)])
def test_no_cell_is_left_out(sizes, align_corners):
    old, new = sizes
    cells = torch.eye(old)[None, :, :, None].expand(1, old, old, 2)  # a channel for each cell
    shares = resize(cells, (new, 2), align_corners)[0, :, :, 0].sum(1) * old / new
    assert shares.min() > 0.4


def test_what_bilinear_interpolation_sees_in_full_is_left_to_it():
    x = torch.rand(1, 2, 16, 16)
    assert resize(x, (16, 16)) is x
    for size in ((9, 9), (15, 17), (40, 9)):
        assert torch.equal(resize(x, size), F.interpolate(x, size, mode='bilinear'))
    corners = F.interpolate(x, (30, 30), mode='bilinear', align_corners=True)
    assert torch.equal(resize(x, (30, 30), align_corners=True), corners)


def test_one_side_may_shrink_and_the_other_grow():
    x = torch.rand(1, 2, 32, 4)
    wanted = F.interpolate(F.adaptive_avg_pool2d(x, (8, 4)), (8, 9), mode='bilinear')
    assert torch.equal(resize(x, (8, 9)), wanted)
