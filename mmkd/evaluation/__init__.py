"""The metric of classifiers; detectors and segmentors have mmdet's and mmseg's."""

from mmkd.evaluation.accuracy import Accuracy

__all__ = ['Accuracy']
