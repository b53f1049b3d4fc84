"""MobileNetV2 for 32 x 32 pixels, against the size of the literature."""

import pytest
import torch
from backbone_checks import check_shapes

from mmkd.models.mobile_net import CifarMobileNetV2, InvertedResidual
from mmkd.teacher import build_model


def test_its_size_is_that_of_the_benchmarks():
    """Of 100 classes, with the linear layer, at half of the width."""
    with torch.device('meta'):
        parameters = build_model(dict(type='mmkd.CifarMobileNetV2')).parameters()
    assert sum(p.numel() for p in parameters) + 100 * (1280 + 1) == 812836


def test_widths_and_sizes_of_the_stages():
    shapes = [(12, 16), (16, 8), (48, 4), (1280, 2)]
    check_shapes(dict(type='mmkd.CifarMobileNetV2'), shapes)


def test_a_shortcut_where_nothing_changes():
    assert InvertedResidual(4, 4, 1, 6).adds
    assert not InvertedResidual(4, 4, 2, 6).adds and not InvertedResidual(4, 6, 1, 6).adds


def test_widths_out_of_range():
    with pytest.raises(ValueError, match='widen_factor'):
        CifarMobileNetV2(widen_factor=0)
