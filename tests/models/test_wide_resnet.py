"""Wide ResNets, against the sizes of the literature."""

import pytest
from backbone_checks import check_shapes, check_size

from mmkd.teacher import build_model


def wrn(depth, k, **widths):
    return dict(type='mmkd.WideResNet', depth=depth, widen_factor=k, **widths)


@pytest.mark.parametrize(
    ('backbone', 'size'),
    [
        (wrn(16, 1), 180916),
        (wrn(16, 2), 703284),
        (wrn(40, 1), 569780),
        (wrn(40, 2), 2255156),
    ],
)
def test_sizes_are_those_of_the_benchmarks(backbone, size):
    check_size(backbone, size)


@pytest.mark.parametrize(
    ('backbone', 'shapes'),
    [
        (wrn(10, 2, base_channels=4), [(8, 32), (16, 16), (32, 8)]),
    ],
)
def test_widths_and_sizes_of_the_stages(backbone, shapes):
    check_shapes(backbone, shapes)


@pytest.mark.parametrize(
    ('backbone', 'message'),
    [
        (wrn(20, 1), r'must be 6n \+ 4 .* found 20'),
    ],
)
def test_depths_that_do_not_exist_are_refused(backbone, message):
    with pytest.raises(ValueError, match=message):
        build_model(backbone)
