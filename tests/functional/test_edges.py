"""Edges of masks, against windows one by one."""

import pytest
import torch

from mmkd.functional.edges import class_edges, edges


def test_both_sides_of_an_outline():  # MSK-2
    mask = torch.tensor([1.0, 1, 0, 0]).expand(1, 4, 4)
    assert edges(mask)[0].tolist() == [[0, 1, 1, 0]] * 4


@pytest.mark.parametrize('radius', [1, 2, 3])
def test_windows_end_at_the_border(radius):
    mask = (torch.rand(2, 7, 9, generator=torch.Generator().manual_seed(0)) > 0.8).float()
    found = edges(mask, radius)
    for n in range(2):
        for i in range(7):
            for j in range(9):
                rows = slice(max(i - radius, 0), i + radius + 1)
                columns = slice(max(j - radius, 0), j + radius + 1)
                window = mask[n, rows, columns]
                assert found[n, i, j] == window.max() - window.min()
    assert not edges(torch.ones(1, 4, 4), radius).any()


def test_edges_of_classes_leave_ignored_pixels_out():
    labels = torch.tensor([[0, 0, -1, 1, 1, 1]])[None]
    found = class_edges(labels, 3, 1, (1, 6))
    assert found[0, :, 0].tolist() == [[0, 1, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0], [0] * 6]
    assert torch.equal(found[:, :2], class_edges(labels, 3, 1, (1, 6), present=[0, 1])[:, :2])
    halved = class_edges(torch.tensor([[0, 0, 0, 1, 1, 1]])[None], 2, 1, (1, 3))
    assert halved[0, 0, 0].tolist() == [0, 1, 0]
