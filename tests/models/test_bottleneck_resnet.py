"""ResNet-50 for 32 x 32 pixels, against the size of the literature."""

import pytest
from backbone_checks import check_shapes, check_size

from mmkd.teacher import build_model


def resnet(**options):
    return dict(type='mmkd.CifarBottleneckResNet', **options)


def test_its_size_is_that_of_the_benchmarks():
    check_size(resnet(depth=50), 23705252)


def test_widths_and_sizes_of_the_stages():
    check_shapes(resnet(base_channels=2), [(8, 32), (16, 16), (32, 8), (64, 4)])


def test_depths_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match='depth'):
        build_model(resnet(depth=18))
