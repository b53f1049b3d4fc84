"""The size of a file of weights; measuring is tested where it is done, and in test_study.py."""

import torch
from torch import nn

from mmkd.study.costs import file_size


def test_weights_and_buffers_count_as_they_are_stored():
    model = nn.Sequential(nn.Linear(3, 2).half(), nn.BatchNorm1d(2, affine=False))
    model.register_buffer('left_out', torch.zeros(100), persistent=False)
    assert file_size(model) == 2 * (3 * 2 + 2) + 4 * (2 + 2) + 8
