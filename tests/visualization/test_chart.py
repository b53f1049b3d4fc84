"""The charts."""

import numpy as np

from mmkd.visualization import canvas
from mmkd.visualization.chart import Bar, bars, curves


def test_curves_of_one_point_and_of_none():
    picture = curves({'teacher': {1: 10.0}, 'student': {}}, 'AP', 'epochs', (200, 100))
    assert picture.shape[1] == 200


def test_bars_are_as_long_as_their_means_and_show_the_spread():
    found = bars([Bar('a', 10.0, (10.0,), 0), Bar('b', 5.0, (4.0, 6.0), 1)], 'AP', '', 300)
    lengths = [int((found == canvas.COLOURS[i]).all(2).any(0).sum()) for i in (0, 1)]
    assert abs(lengths[0] - 2 * lengths[1]) <= 6
    row = found[38 + 24 + 4 + 8]
    assert (row == np.array(canvas.INK)).all(1).sum() > lengths[1] / 4, 'the line from 4 to 6'
    assert bars([], 'AP', '', 100).shape[1] == 100
    assert bars([Bar('a', 0.0, (-1.0, 0.0), 9)], 'AP', '', 100).any(), 'no division by 0'
