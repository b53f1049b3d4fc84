"""VGGs for 32 x 32 pixels, against the sizes of the literature."""

import pytest
from backbone_checks import check_shapes, check_size

from mmkd.teacher import build_model


def vgg(depth, **widths):
    return dict(type='mmkd.CifarVGG', depth=depth, **widths)


@pytest.mark.parametrize(
    ('backbone', 'size'),
    [
        (vgg(8), 3965028),
        (vgg(13), 9462180),
    ],
)
def test_sizes_are_those_of_the_benchmarks(backbone, size):
    check_size(backbone, size)


@pytest.mark.parametrize(
    ('backbone', 'shapes'),
    [
        (vgg(11, base_channels=4), [(8, 16), (16, 8), (32, 4), (32, 4)]),
    ],
)
def test_widths_and_sizes_of_the_stages(backbone, shapes):
    check_shapes(backbone, shapes)


@pytest.mark.parametrize(
    ('backbone', 'message'),
    [
        (vgg(12), r'must be one of \[8, 11, 13, 16, 19\], found 12'),
    ],
)
def test_depths_that_do_not_exist_are_refused(backbone, message):
    with pytest.raises(ValueError, match=message):
        build_model(backbone)
