"""The chart of curves."""

from mmkd.visualization.chart import curves


def test_curves_of_one_point_and_of_none():
    picture = curves({'teacher': {1: 10.0}, 'student': {}}, 'AP', 'epochs', (200, 100))
    assert picture.shape[1] == 200
