"""Blood cells in VOC layout: https://github.com/Shenggan/BCCD_Dataset (MIT)."""

from __future__ import annotations

from mmdet.datasets import XMLDataset

from mmkd.registry import DATASETS


@DATASETS.register_module()
class BCCDDataset(XMLDataset):
    """BCCD: ``Annotations``, ``JPEGImages`` and ``ImageSets/Main`` directly under ``data_root``.

    Boxes without area are left out, in training as in testing: two of the published annotations
    are single points, which no detector can find and RetinaNet turns into an infinite target.
    """

    METAINFO = dict(
        classes=('RBC', 'WBC', 'Platelets'),
        palette=[(220, 70, 70), (70, 110, 220), (240, 190, 60)],
    )

    def __init__(self, *args, data_prefix: dict | None = None, **kwargs) -> None:
        # XMLDataset finds images and annotations through this prefix only; '' is data_root itself.
        prefix = dict(sub_data_root='') if data_prefix is None else data_prefix
        super().__init__(*args, data_prefix=prefix, **kwargs)

    def _parse_instance_info(self, *args, **kwargs) -> list[dict]:
        instances = super()._parse_instance_info(*args, **kwargs)
        return [one for one in instances if _has_area(one['bbox'])]


def _has_area(box: list[float]) -> bool:
    return box[2] > box[0] and box[3] > box[1]
