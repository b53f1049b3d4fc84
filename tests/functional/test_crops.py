"""Squared distances inside regions, against crops cut out one by one."""

import pytest
import torch

from mmkd.functional.crops import crop_weights


def test_many_regions_leave_exactly_nothing_outside():
    low = torch.rand(500, 2) * 60 + 8
    rois = torch.cat((torch.zeros(500, 1), low, low + 1 + torch.rand(500, 2) * 40), 1)
    weight = crop_weights(rois, (20, 20), 8, 1)
    assert (weight >= 0).all() and (weight[:, 0] == 0).all() and (weight[:, -1] == 0).all()
    assert float(weight.sum()) == pytest.approx(500, rel=1e-6)
