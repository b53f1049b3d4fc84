"""CorLoc: in how many images that contain a class its best box is on an object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from mmkd.functional.boxes import iou_matrix
from mmkd.options import check_number
from mmkd.registry import METRICS


def best_on_object(predicted: Any, truth: Any, iou: float = 0.5) -> dict[int, bool]:
    """Whether the best box of each class in the image has an IoU of at least ``iou`` with one.

    Args:
        predicted (Mapping): ``bboxes`` (P, 4), ``scores`` (P,), ``labels`` (P,).
        truth (Mapping): ``bboxes`` (G, 4), ``labels`` (G,).

    Returns:
        dict[int, bool]: by class, of those in ``truth``; a class without any box is a miss.
    """
    boxes, scores, labels = (
        torch.as_tensor(predicted[k]).cpu() for k in ('bboxes', 'scores', 'labels')
    )
    objects, classes = (torch.as_tensor(_plain(truth[k])).cpu() for k in ('bboxes', 'labels'))
    found = {}
    for label in classes.unique().tolist():
        own = (labels == label).nonzero()[:, 0]
        if not len(own):
            found[label] = False
            continue
        best = boxes[own[scores[own].argmax()]][None].float()
        overlap = iou_matrix(best, objects[classes == label].reshape(-1, 4).float())
        found[label] = bool(overlap.max() >= iou)
    return found


def _plain(boxes: Any) -> Tensor:
    """Boxes of mmdet's own type as a tensor."""
    return boxes.tensor if hasattr(boxes, 'tensor') else boxes


@METRICS.register_module()
class CorLoc(BaseMetric):
    """Correct localisation, in percent (Deselaers et al., IJCV 2012).

    For each class, the share of the images containing it whose single box of highest score has an
    IoU of at least 0.5 with one of its objects; then the mean over classes. It is meant for the
    *training* images, whose classes are known: let ``val_dataloader`` or ``test_dataloader`` read
    them, with annotations loaded behind ``Resize``. Objects to be ignored do not count.

    Args:
        iou (float): least overlap.
        **kwargs: of :class:`mmengine.evaluator.BaseMetric`.

    Raises:
        ValueError: an IoU outside (0, 1]; samples without ground truth; no object in any image.
    """

    default_prefix = ''  # not None, of which mmengine complains

    def __init__(self, iou: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.iou = check_number('CorLoc', 'iou', iou, above=0, most=1)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Note for each sample which of its classes were found."""
        for sample in data_samples:
            truth = sample.get('gt_instances', {})
            if 'bboxes' not in truth:
                raise ValueError(
                    f'CorLoc: {sample.get("img_path", "an image")} came without boxes of its '
                    'objects. Put LoadAnnotations with with_bbox=True behind Resize in the '
                    'pipeline of the evaluation, and no ImageLabels.'
                )
            self.results.append(best_on_object(sample['pred_instances'], truth, self.iou))

    def compute_metrics(self, results: list[dict[int, bool]]) -> dict[str, float]:
        """``corloc``, and ``corloc_<class>`` of each class that occurs."""
        if not any(results):
            raise ValueError('CorLoc: no image has an object, so there is nothing to find.')
        names = (self.dataset_meta or {}).get('classes', ())
        labels = sorted({label for found in results for label in found})
        means = {c: 100 * np.mean([found[c] for found in results if c in found]) for c in labels}
        named = {f'corloc_{names[c] if c < len(names) else c}': float(m) for c, m in means.items()}
        return {'corloc': float(np.mean(list(means.values()))), **named}
