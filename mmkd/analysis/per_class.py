"""Scores of single classes from metrics of mmseg and mmdet, which print them but return means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric


def iou_of_classes(metric: Any, results: Sequence[tuple]) -> dict[str, float]:
    """IoU in percent of each class that mmseg's ``IoUMetric`` counted.

    Args:
        metric (IoUMetric): has the names.
        results (Sequence[tuple]): of each image the pixels (K,) in the intersection, in the union,
            …; NaN for a class that is neither there nor predicted.
    """
    intersection, union = (np.sum([np.asarray(r[i]) for r in results], 0) for i in (0, 1))
    scores = np.divide(
        100 * intersection, union, out=np.full(len(union), np.nan), where=np.asarray(union) > 0
    )
    return dict(zip(metric.dataset_meta['classes'], scores.tolist(), strict=True))


def ap_of_classes(metric: Any, results: Sequence[tuple]) -> dict[str, float]:
    """Average precision of each class, mean over the IoU thresholds of mmdet's ``VOCMetric``.

    Args:
        metric (VOCMetric): has the names and the thresholds.
        results (Sequence[tuple]): of each image its annotations and its detections by class; NaN
            for a class without objects.
    """
    from mmdet.evaluation.functional import eval_map

    objects, detections = zip(*results, strict=True)
    options = dict(eval_mode=metric.eval_mode, use_legacy_coordinate=True, logger='silent')
    found = [
        [float(one['ap']) if one['num_gts'] else np.nan for one in classes]
        for threshold in metric.iou_thrs
        for _, classes in [eval_map(detections, objects, iou_thr=threshold, **options)]
    ]
    names = metric.dataset_meta['classes']
    return dict(zip(names, np.mean(found, 0).tolist(), strict=True))


_BY_TYPE = {'IoUMetric': iou_of_classes, 'VOCMetric': ap_of_classes}


def report_classes(metrics: Iterable[BaseMetric]) -> None:
    """Let metrics return the score of each class, too; those of other kinds are left alone."""
    for metric in metrics:
        kind = type(metric).__name__
        if kind == 'CocoMetric':
            metric.classwise = True  # type: ignore[attr-defined]
        elif kind in _BY_TYPE and getattr(metric, 'metric', 'mAP') == 'mAP':
            _extend(metric, _BY_TYPE[kind])


def _extend(metric: Any, of_classes: Any) -> None:
    means = metric.compute_metrics

    def compute_metrics(results: list) -> dict[str, float]:
        return {**of_classes(metric, results), **means(results)}

    metric.compute_metrics = compute_metrics
