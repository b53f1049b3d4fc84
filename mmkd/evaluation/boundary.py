"""COCO's AP of masks, judged at their outlines alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from mmdet.evaluation import CocoMetric
from pycocotools import mask as coding

from mmkd.options import check_number
from mmkd.registry import METRICS


def rim(mask: np.ndarray, width: int) -> np.ndarray:
    """The part of a mask (H, W) that lies within ``width`` pixels of its outline.

    The border of the image is an outline, too.
    """
    mask = np.ascontiguousarray(mask, np.uint8)
    square = np.ones((3, 3), np.uint8)
    border = dict(borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return mask - cv2.erode(mask, square, iterations=width, **border)


def rim_of_code(code: dict[str, Any], ratio: float) -> dict[str, Any]:
    """:func:`rim` of a run-length code; its width is ``ratio`` of the image's diagonal."""
    width = max(1, round(ratio * float(np.hypot(*code['size']))))
    return coding.encode(np.asfortranarray(rim(coding.decode(code), width)))


@METRICS.register_module()
class BoundaryCocoMetric(CocoMetric):
    """AP as COCO has it for masks, whose IoU counts only pixels near their outlines.

    The rims of Cheng et al., CVPR 2021 (Boundary IoU), who take the smaller of this IoU and that of
    the whole masks; here it is this one, so that the interior counts for nothing. AP of small,
    medium and large objects is by the area of the whole mask in the ground truth.

    Args:
        ann_file (str): COCO's annotation file, with masks.
        ratio (float): width of a rim as a share of the image's diagonal, at least one pixel.
        **kwargs: of mmdet's ``CocoMetric``, except ``metric``.

    Raises:
        ValueError: a ratio out of (0, 0.5); no annotation file.
    """

    default_prefix = 'boundary'

    def __init__(self, ann_file: str | None = None, ratio: float = 0.02, **kwargs: Any) -> None:
        self.ratio = check_number('BoundaryCocoMetric', 'ratio', ratio, above=0, below=0.5)
        if ann_file is None:
            raise ValueError(
                'BoundaryCocoMetric takes the masks of the ground truth from an annotation file: '
                'set ann_file, as for CocoMetric.'
            )
        super().__init__(ann_file=ann_file, metric='segm', **kwargs)
        for annotation in self._coco_api.dataset['annotations']:
            code = self._coco_api.annToRLE(annotation)
            annotation['segmentation'] = rim_of_code(code, self.ratio)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the rims of the predicted masks."""
        known = len(self.results)
        super().process(data_batch, data_samples)
        for _, result in self.results[known:]:
            result['masks'] = [rim_of_code(code, self.ratio) for code in result.get('masks', ())]
