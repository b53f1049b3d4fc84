"""ResNets for 32 x 32 pixels, against the sizes of the literature."""

import pytest
from backbone_checks import check_shapes, check_size

from mmkd.teacher import build_model


def resnet(depth, **widths):
    return dict(type='mmkd.CifarResNet', depth=depth, **widths)


WIDE = dict(base_channels=64, stem_channels=32)


@pytest.mark.parametrize(
    ('backbone', 'size'),
    [
        (resnet(20), 278324),
        (resnet(32), 472756),
        (resnet(56), 861620),
        (resnet(110), 1736564),
        (resnet(8, **WIDE), 1233540),
        (resnet(32, **WIDE), 7433860),
    ],
)
def test_sizes_are_those_of_the_benchmarks(backbone, size):
    check_size(backbone, size)


@pytest.mark.parametrize(
    ('backbone', 'shapes'),
    [
        (resnet(8, base_channels=4), [(4, 32), (8, 16), (16, 8)]),
        (resnet(14, base_channels=4, stem_channels=6), [(4, 32), (8, 16), (16, 8)]),
    ],
)
def test_widths_and_sizes_of_the_stages(backbone, shapes):
    check_shapes(backbone, shapes)


@pytest.mark.parametrize(
    ('backbone', 'message'),
    [
        (resnet(18), r'must be 6n \+ 2 .* found 18'),
        (resnet(2), r'must be 6n \+ 2 .* found 2'),
    ],
)
def test_depths_that_do_not_exist_are_refused(backbone, message):
    with pytest.raises(ValueError, match=message):
        build_model(backbone)
