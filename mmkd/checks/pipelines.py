"""Asks the transforms of a run's datasets whether they can serve every image, before training."""

from __future__ import annotations

from typing import Any

from mmkd.datasets.protection import leaves


def check_pipelines(*datasets: Any) -> None:
    """Call ``check_dataset(dataset)`` of every transform that has it, which raises ValueError."""
    for dataset in datasets:
        for one in leaves(dataset):
            for transform in getattr(getattr(one, 'pipeline', None), 'transforms', ()):
                if hasattr(transform, 'check_dataset'):
                    transform.check_dataset(one)
