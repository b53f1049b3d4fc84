"""The data sample of one image to classify."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

#: of a data sample's meta information: False of an image without ground truth
LABELLED = 'labelled'


class ClassSample(BaseDataElement):
    """One image's labels and predictions, and in ``metainfo`` its number in the dataset.

    Attributes:
        gt_label (Tensor): (1,) long, the class; of a mixture the heaviest one.
        gt_score (Tensor): (K,) float32, of a mixture (mixup, CutMix) the share of each class, of
            an answered image (``mmkd.AnsweredImages``) its probability.
        pred_label (Tensor): (1,) long.
        pred_score (Tensor): (K,) float32, sums to one.
        pred_logit (Tensor): (K,) float32, whose softmax that is, where it is known.
        pred_embedding (Tensor): (D,) float32, the pooled features, where they are known.
        exit_scores (Tensor): (M, K) float32, of a network with M exits those of each.
        sample_idx (int): position in the dataset; of a mixture that of the heaviest image.
    """

    def set_gt_label(self, label: Any) -> ClassSample:
        """Set the class from a number or a tensor of one element."""
        self.set_field(torch.as_tensor(label).flatten()[:1].long(), 'gt_label', dtype=Tensor)
        return self

    def set_gt_score(self, score: Tensor) -> ClassSample:
        """Set the shares of the classes, (K,)."""
        self.set_field(score, 'gt_score', dtype=Tensor)
        return self

    def set_prediction(
        self, score: Tensor, logit: Tensor | None = None, embedding: Tensor | None = None
    ) -> ClassSample:
        """Set scores (K,) and with them the predicted class; and what is behind them."""
        if embedding is not None:
            self.set_field(embedding, 'pred_embedding', dtype=Tensor)
        if logit is not None:
            self.set_field(logit, 'pred_logit', dtype=Tensor)
        self.set_field(score, 'pred_score', dtype=Tensor)
        self.set_field(score.argmax()[None], 'pred_label', dtype=Tensor)
        return self

    def set_exit_scores(self, scores: Tensor) -> ClassSample:
        """Set the scores of all exits, (M, K)."""
        self.set_field(scores, 'exit_scores', dtype=Tensor)
        return self
