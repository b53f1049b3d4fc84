"""Scores of single classes from metrics of mmseg and mmdet, which print them but return means."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
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
    """Let metrics return the score of each class, too, under its name; those of other kinds are
    left alone. What COCO's tools call -1, because there is nothing to find, becomes NaN."""
    for metric in metrics:
        kinds = [kind.__name__ for kind in type(metric).__mro__]
        if 'CocoMetric' in kinds:
            _split_coco(metric)
        elif kinds[0] in _BY_TYPE and getattr(metric, 'metric', 'mAP') == 'mAP':
            _extend(metric, _BY_TYPE[kinds[0]])


def is_class(row: str, classes: Collection[str]) -> bool:
    """Whether a score is that of a single class: ``'car'``, or ``'car (segm)'`` beside boxes."""
    return row in classes or row.rpartition(' (')[0] in classes


def _extend(metric: Any, of_classes: Any) -> None:
    means = metric.compute_metrics

    def compute_metrics(results: list) -> dict[str, float]:
        return {**means(results), **of_classes(metric, results)}

    metric.compute_metrics = compute_metrics


def _split_coco(metric: Any) -> None:
    """Evaluate boxes and masks one by one: their classes would share their names."""
    original, kinds = metric.compute_metrics, metric.metrics
    metric.classwise = True

    def compute_metrics(results: list) -> dict[str, float]:
        found: dict[str, float] = {}
        for kind in kinds:
            metric.metrics = [kind]
            suffix = f' ({kind})' if len(kinds) > 1 else ''
            for key, score in original(results).items():
                name = key.removesuffix('_precision')
                found[name + suffix * (name != key)] = math.nan if score == -1 else score
        metric.metrics = kinds
        return found

    metric.compute_metrics = compute_metrics
