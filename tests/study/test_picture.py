"""Curves of a study: means over seeds, of points that all seeds have."""

from types import SimpleNamespace

from mmkd.study.picture import _mean_curve
from mmkd.study.results import Result


def test_a_mean_curve_has_the_points_of_all_seeds():
    curves = {
        0: {'1': dict(mAP=0.1), '2': dict(mAP=0.3)},
        1: {'1': dict(mAP=0.3), '3': dict(mAP=1.0), '4': dict(x=1.0)},
    }
    pair = SimpleNamespace(metric='mAP', factor=100)
    assert _mean_curve(Result(None, curves=curves), pair) == {1: 20.0}
