"""Metrics are asked before the first step whether they can score the data and the model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mmengine.hooks import CheckpointHook, EarlyStoppingHook
from mmengine.structures import BaseDataElement
from torch import nn

from mmkd.checks.labels import labels_of
from mmkd.evaluation import Accuracy
from mmkd.names import did_you_mean
from mmkd.options import check_choice
from mmkd.untouched import at_rest, untouched_random_state

#: what mmseg's IoUMetric measures; it looks at its option in the first evaluation
IOU = ('mIoU', 'mDice', 'mFscore')


def check_metrics(loop: Any, model: nn.Module) -> None:
    """Metrics that ask for something of data or predictions must find it.

    ``check_classes(count)`` and ``check_dataset(dataset)`` of a metric are called, and metrics of
    mmkd are shown what the model predicts for one image.

    Raises:
        ValueError: of a metric: too few classes, or what else it needs is not there.
    """
    metrics = getattr(getattr(loop, 'evaluator', None), 'metrics', [])
    asking = [metric for metric in metrics if hasattr(metric, 'check_classes')]
    labels = labels_of(loop.dataloader.dataset, 'the validation data') if asking else None
    for metric in asking if labels else []:
        metric.check_classes(len(labels.names))
    for metric in metrics:
        if type(metric).__name__ == 'IoUMetric':
            metric.metrics = [  # found in any case, as all choices
                check_choice('IoUMetric', 'iou_metrics', one, IOU) for one in metric.metrics
            ]
        if hasattr(metric, 'check_dataset'):
            metric.check_dataset(loop.dataloader.dataset)
    own = [metric for metric in metrics if type(metric).__module__.startswith('mmkd.')]
    if own and hasattr(model, 'val_step'):
        _show_one(own, loop.dataloader, model)


def check_best(loop: Any, hooks: Iterable[Any]) -> None:
    """The metrics by which checkpoints are chosen and runs are stopped must be measured.

    Only of metrics whose names are known before they are measured.

    Raises:
        ValueError: another one is asked for.
    """
    metrics = getattr(getattr(loop, 'evaluator', None), 'metrics', [])
    classes = getattr(loop.dataloader.dataset, 'metainfo', {}).get('classes', ()) if metrics else ()
    found = [names_of(metric, classes) for metric in metrics]
    if not found or None in found:
        return
    known = [name for names in found for name in names or ()]
    for hook in hooks:
        best = isinstance(hook, CheckpointHook)
        asked = getattr(hook, 'key_indicators', None) if best else None
        if isinstance(hook, EarlyStoppingHook):
            asked = [hook.monitor]
        for name in asked or ():
            if name != 'auto' and name not in known:
                option = 'checkpoint.save_best' if best else 'EarlyStoppingHook.monitor'
                raise ValueError(
                    f'{option}={name!r} is no metric of the validation, which has '
                    f'{", ".join(known)}.{did_you_mean(name, known)}'
                )


def names_of(metric: Any, classes: Sequence[str] = ()) -> list[str] | None:
    """What a metric is going to measure, as it is logged; None where that is not known."""
    kind, prefix = type(metric).__name__, f'{metric.prefix}/' if metric.prefix else ''
    if isinstance(metric, Accuracy) and not metric.exits:
        names = [f'top{k}' for k in metric.topk]
    elif kind == 'CocoMetric':
        if {*metric.metrics} - {'bbox', 'segm'} or metric.metric_items:
            return None
        ends = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
        names = [f'{one}_{end}' for one in metric.metrics for end in ends]
        names += [f'{one}_precision' for one in classes if metric.classwise]
    elif kind == 'IoUMetric' and metric.metrics == ['mIoU']:
        names = ['aAcc', 'mIoU', 'mAcc']
    else:
        return None
    return [f'{prefix}{name}' for name in names]


def _show_one(metrics: list[Any], loader: Any, model: nn.Module) -> None:
    """Let metrics process one image, and forget it."""
    with untouched_random_state(), at_rest(model):
        batch = loader.collate_fn([loader.dataset[0]])
        found = model.val_step(batch)
        samples = [one.to_dict() if isinstance(one, BaseDataElement) else one for one in found]
        for metric in metrics:
            before, metric.results = metric.results, []
            try:
                metric.process(batch, samples)
            except (AttributeError, IndexError, KeyError, TypeError):
                pass  # of samples of another kind, which the validation itself will show
            finally:
                metric.results = before
