"""Which detectors learn from image labels."""

import pytest

from mmkd.families.comparable import Misfit
from mmkd.families.weak import check_weak
from mmkd.teacher import build_model
from mmkd.testing import tiny_faster_rcnn, tiny_weak


def test_only_those_with_refinements_pass():
    check_weak('It', build_model(tiny_weak(4)))
    none = build_model(tiny_weak(4, roi_head=dict(refinements=0, boxes=False)))
    with pytest.raises(Misfit, match='the student is WeakDetector with refinements=0'):
        check_weak('It', none)
    with pytest.raises(Misfit, match='It is for detectors that learn from image labels'):
        check_weak('It', build_model(tiny_faster_rcnn(4)))
