"""Metrics of mmkd's own: those of classifiers. Detectors and segmentors have mmdet's and mmseg's."""

from mmkd.evaluation.accuracy import Accuracy

__all__ = ['Accuracy']
