"""Metrics are asked before the first step whether they can score the data and the model."""

from __future__ import annotations

from typing import Any

from torch import nn

from mmkd.checks.labels import labels_of
from mmkd.untouched import at_rest, untouched_random_state


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
        if hasattr(metric, 'check_dataset'):
            metric.check_dataset(loop.dataloader.dataset)
    own = [metric for metric in metrics if type(metric).__module__.startswith('mmkd.')]
    if own and hasattr(model, 'val_step'):
        _show_one(own, loop.dataloader, model)


def _show_one(metrics: list[Any], loader: Any, model: nn.Module) -> None:
    """Let metrics process one image, and forget it."""
    with untouched_random_state(), at_rest(model):
        batch = loader.collate_fn([loader.dataset[0]])
        samples = [sample.to_dict() for sample in model.val_step(batch)]
        for metric in metrics:
            before, metric.results = metric.results, []
            try:
                metric.process(batch, samples)
            finally:
                metric.results = before
