"""A data set of a stated length without images, for runs whose images are generated."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dataset import BaseDataset

from mmkd.options import check_number
from mmkd.registry import DATASETS
from mmkd.structures import LABELLED, ClassSample


@DATASETS.register_module()
class NoImages(BaseDataset):
    """As many entries as are asked for, each a single black pixel without a label.

    An objective that generates images (DAFL, DFAD, ZSKT) puts its own in their place, as many as
    the batch has. So the length, over the batch size, is the number of steps of an epoch.

    Args:
        length (int): entries.
        channels (int): of the pixel, as the student's images have them.
        **kwargs: of :class:`mmengine.dataset.BaseDataset`, such as ``metainfo``.

    Raises:
        ValueError: a length below 1.
    """

    no_labels = True
    no_images = True

    def __init__(self, length: int, channels: int = 3, **kwargs: Any) -> None:
        self.length = check_number('NoImages', 'length', length, 1, whole=True)
        self.channels = check_number('NoImages', 'channels', channels, 1, whole=True)
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """One entry for each number."""
        return [dict() for _ in range(self.length)]

    def prepare_data(self, idx: int) -> dict[str, Any]:
        """A packed sample; there is nothing that a pipeline could do."""
        meta = {LABELLED: False, 'sample_idx': idx, 'img_shape': (1, 1)}
        pixel = torch.zeros(self.channels, 1, 1, dtype=torch.uint8)
        return dict(inputs=pixel, data_samples=ClassSample(metainfo=meta))
