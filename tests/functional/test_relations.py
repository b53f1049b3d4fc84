"""Distances and directions of rows."""

import torch
from row_toys import random_rows

from mmkd.analysis.benchmark import peak_bytes
from mmkd.functional.relations import distances


def test_distances_of_close_rows_far_from_the_origin():
    x = 1000 + random_rows(b=4, dtype=torch.float32)[0] / 100
    wanted = (x[:, None].double() - x).norm(dim=2)
    torch.testing.assert_close(distances(x).double(), wanted, rtol=1e-6, atol=0)
    twins = torch.cat((x, x[:1])).requires_grad_()
    found = distances(twins)
    assert not found[0, 4] and not found.diagonal().any()
    assert torch.autograd.grad(found[0, 4], twins)[0].abs().max() == 0
    wide = torch.rand(48, 4096, requires_grad=True)  # not 48 * 48 * 4096 * 4 = 38e6 bytes
    assert peak_bytes(lambda: distances(wide).sum().backward()) < 15e6
