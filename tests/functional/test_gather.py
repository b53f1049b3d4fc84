"""Rows of all ranks, and their gradients."""

import torch
from two_ranks import of_two_ranks

from mmkd.functional.gather import all_gather_rows, mean_over_ranks


def gathered(rank):
    x = torch.arange(6.0).view(3, 2)[: 1 + rank].requires_grad_()  # unequally many rows
    rows = all_gather_rows(x)
    rows.square().sum().backward()
    return dict(rows=rows.detach(), grad=x.grad, long=all_gather_rows(torch.full((2,), rank)))


def test_rows_of_all_ranks(tmp_path):
    wanted = torch.tensor([[0.0, 1], [0, 1], [2, 3]])
    for rank, found in enumerate(of_two_ranks(gathered, tmp_path)):
        assert torch.equal(found['rows'], wanted)
        # Twice the gradient of the sum: averaging over two ranks takes half.
        assert torch.equal(found['grad'], 4 * torch.arange(6.0).view(3, 2)[: 1 + rank])
        assert found['long'].tolist() == [0, 0, 1, 1]


def test_one_process_has_its_own():
    alone = torch.ones(2, 2)
    assert all_gather_rows(alone) is alone
    assert mean_over_ranks(alone) is alone


def averaged(rank):
    own = torch.tensor(1.0 + rank)
    return own, mean_over_ranks(own)


def test_normalisers_of_two_ranks(tmp_path):
    found = of_two_ranks(averaged, tmp_path)
    assert [x.tolist() for pair in found for x in pair] == [1, 1.5, 2, 1.5]
