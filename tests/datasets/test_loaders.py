"""What a DataLoader says about itself."""

import torch
from torch.utils.data import DataLoader, Sampler

from mmkd.datasets.loaders import length_of


class Endless(Sampler):
    def __iter__(self):
        return iter(range(9))


def test_batches_of_one_pass():
    data = torch.zeros(9)
    assert length_of(DataLoader(data, 2)) == 5
    assert length_of(DataLoader(data, 2, drop_last=True)) == 4
    assert length_of(DataLoader(data, 2, sampler=Endless())) is None
