"""The shortest route to taps."""

import pytest

from mmkd.route import features_given, shortest_route
from mmkd.tap import parse_taps
from mmkd.teacher import build_model
from mmkd.testing import ToyNet, tiny_faster_rcnn


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


def test_features_that_are_given_may_be_given_again():
    """As where a compiled segmentor also runs its auxiliary heads."""
    model = ToyNet()
    with features_given(model, 'outer') as outer:
        with features_given(model, 'inner') as inner:
            assert model.extract_feat(None) == 'inner'
        assert model.extract_feat(None) == 'outer'
    assert 'extract_feat' not in vars(model) and outer == inner == [True]
