"""Metrics of classifiers; detectors and segmentors have mmdet's and mmseg's."""

from mmkd.evaluation.accuracy import Accuracy
from mmkd.evaluation.calibration import Calibration

__all__ = ['Accuracy', 'Calibration']
