"""Metrics of classifiers, verification, outlines of masks, CorLoc; others are mmdet's, mmseg's."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from mmkd.evaluation.accuracy import Accuracy
from mmkd.evaluation.calibration import Calibration
from mmkd.evaluation.corloc import CorLoc
from mmkd.evaluation.verification import Verification
from mmkd.registry import METRICS

__all__ = ['Accuracy', 'Calibration', 'CorLoc', 'Verification']

#: imported when they are asked for
_POSTPONED: dict[str, str] = {}
if find_spec('mmdet'):
    METRICS.postpone(_MASKS := {'BoundaryCocoMetric': 'mmkd.evaluation.boundary'})
    _POSTPONED |= _MASKS
__all__ += [*_POSTPONED]


def __getattr__(name: str) -> Any:
    if name not in _POSTPONED:
        raise AttributeError(name)
    return getattr(import_module(_POSTPONED[name]), name)
