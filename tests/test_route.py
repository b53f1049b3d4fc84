"""The shortest route to taps."""

import pytest

from mmkd.route import shortest_route
from mmkd.tap import parse_taps
from mmkd.teacher import build_model
from mmkd.testing import tiny_faster_rcnn


@pytest.mark.parametrize(
    ('taps', 'route'),
    [
        (['backbone', 'backbone.layer2'], 'backbone'),
        (['backbone', 'neck[0:3]'], 'extract_feat'),
        (['neck', 'rpn_head'], 'tensor'),
        (['roi_head.bbox_head'], 'tensor'),
    ],
)
def test_the_shortest_route(taps, route):
    assert shortest_route(build_model(tiny_faster_rcnn(4)), parse_taps(taps)) == route
