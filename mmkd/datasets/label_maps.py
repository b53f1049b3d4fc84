"""Label maps of more than 8 bits, which mmseg's loading step cuts off."""

from __future__ import annotations

from typing import Any

import mmcv
import numpy as np
from mmengine import fileio
from mmseg.datasets.transforms import LoadAnnotations

from mmkd.options import check_number
from mmkd.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadLabelMap(LoadAnnotations):
    """mmseg's ``LoadAnnotations``, but a label map of 16 bits keeps its values.

    mmseg's keeps the lower 8 bits, so that label 256 becomes 0. Later steps (resize, crop, flip,
    pad, pack) take the map as it is, (H, W) of the file's own type.

    Args:
        ignore_index (int): label that ``reduce_zero_label`` gives to 0 and leaves alone.
        **kwargs: of mmseg's ``LoadAnnotations``.
    """

    def __init__(self, ignore_index: int = 255, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ignore_index = check_number('LoadLabelMap', 'ignore_index', ignore_index, whole=True)

    def _load_seg_map(self, results: dict) -> None:
        content = fileio.get(results['seg_map_path'], backend_args=self.backend_args)
        labels = mmcv.imfrombytes(content, flag='unchanged', backend=self.imdecode_backend)
        labels = labels[..., 0] if labels.ndim == 3 and labels.shape[2] == 1 else labels
        if labels.dtype.kind in 'iu' and labels.dtype.itemsize > 2:
            labels = labels.astype(np.uint16)  # what OpenCV can resize
        reduce = self.reduce_zero_label
        if results.get('reduce_zero_label') if reduce is None else reduce:
            ignored = (labels == 0) | (labels == self.ignore_index)
            labels = np.where(ignored, self.ignore_index, labels - 1).astype(labels.dtype)
        stored = labels.copy()
        for old, new in (results.get('label_map') or {}).items():
            labels[stored == old] = new
        results['gt_seg_map'] = labels
        results['seg_fields'].append('gt_seg_map')
