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
        exits (bool): of a network with exits (``mmkd.Exits``) also those of each exit,
            ``exit0_top1``, …, and of the mean of their probabilities, ``mean_top1``, ….
        **kwargs: of :class:`mmengine.evaluator.BaseMetric`.

    Raises:
        ValueError: no k, one below 1, or one above the number of classes.
    """

    default_prefix = ''  # not None, of which mmengine complains

    def __init__(self, topk: Sequence[int] = (1, 5), exits: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.exits = exits
        if not isinstance(topk, Sequence) or not topk:
            raise ValueError(f'Accuracy: topk must be numbers such as (1, 5), found {topk!r}.')
        self.topk = tuple(check_number('Accuracy', 'topk', k, 1, whole=True) for k in topk)

    def check_classes(self, count: int) -> None:
        """Refuse data of fewer classes than are asked for; called before training, too."""
        if max(self.topk) > count:
            few = tuple(k for k in self.topk if k <= count) or (1,)
            raise ValueError(
                f'Accuracy: topk={self.topk} asks for more classes than the {count} there are; set '
                f'val_evaluator.topk={few}.'
            )

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Note for each sample (``pred_score``, ``gt_label``) in which top k its class is."""
        for sample in data_samples:
            scores = sample['pred_score'][None]
            if self.exits:
                if sample.get('exit_scores') is None:
                    raise ValueError(
                        'Accuracy: exits=True needs the scores of several exits, but the model '
                        "predicts one; let it be dict(type='mmkd.Edited', model=…, "
                        "edits=[dict(type='mmkd.Exits')])."
                    )
                every = sample['exit_scores']
                scores = torch.cat((scores, every, every.mean(0, keepdim=True)))
            self.check_classes(scores.shape[1])
            order = torch.topk(scores, max(self.topk)).indices
            right = order == sample['gt_label'].to(scores.device)
            self.results.append([right[:, :k].any(1).tolist() for k in self.topk])

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Mean over all samples, in percent."""
        means = 100 * np.mean(results, axis=0)  # (k, 1) or (k, 1 + exits + 1)
        count = means.shape[1] - 2
        names = ['', *(f'exit{i}_' for i in range(count)), 'mean_'][: means.shape[1]]
        return {
            f'{name}top{k}': float(mean)
            for i, name in enumerate(names)
            for k, mean in zip(self.topk, means[:, i], strict=True)
        }
