"""Cells of several levels, in the order of the priors."""

import torch

from mmkd.functional.cells import rows


def test_rows_are_the_cells_level_by_level():
    """Two priors a cell, three numbers each: prior after prior, cell after cell, level after level."""
    maps = [torch.randn(2, 6, 2, 3), torch.randn(2, 6, 1, 2)]
    found = rows(maps, 3)
    assert found.shape == (2, 2 * (6 + 2), 3)
    wanted = [
        level[n, 3 * prior : 3 * prior + 3, y, x]
        for n in range(2)
        for level in maps
        for y in range(level.shape[2])
        for x in range(level.shape[3])
        for prior in range(2)
    ]
    assert torch.equal(found.flatten(0, 1), torch.stack(wanted))
