"""How often the true class is among the k that score highest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric

from mmkd.options import check_number
from mmkd.registry import METRICS


@METRICS.register_module()
class Accuracy(BaseMetric):
    """Percentages ``top1``, ``top5``, …

    Args:
        topk (Sequence[int]): the k of each.
        **kwargs: of :class:`mmengine.evaluator.BaseMetric`.

    Raises:
        ValueError: no k, one below 1, or one above the number of classes.
    """

    default_prefix = ''  # not None, of which mmengine complains

    def __init__(self, topk: Sequence[int] = (1, 5), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(topk, Sequence) or not topk:
            raise ValueError(f'Accuracy: topk must be numbers such as (1, 5), found {topk!r}.')
        self.topk = tuple(check_number('Accuracy', 'topk', k, 1, whole=True) for k in topk)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Note for each sample (``pred_score``, ``gt_label``) in which top k its class is."""
        for sample in data_samples:
            score, label = sample['pred_score'], sample['gt_label'].to(sample['pred_score'].device)
            if max(self.topk) > len(score):
                raise ValueError(
                    f'Accuracy: topk={self.topk} asks for more classes than the {len(score)} there '
                    'are; set val_evaluator.topk=(1,).'
                )
            order = torch.topk(score, max(self.topk)).indices
            self.results.append([bool((order[:k] == label).any()) for k in self.topk])

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Mean over all samples, in percent."""
        means = 100 * np.mean(results, axis=0)
        return {f'top{k}': float(mean) for k, mean in zip(self.topk, means, strict=True)}
