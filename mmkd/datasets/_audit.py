"""A look at a built dataset before training: what is wrong with it, in one line each."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from mmengine.logging import print_log

from mmkd.datasets._names import Names, is_coco, read_names, spread
from mmkd.datasets._paths import check_files, check_names

LABEL_IMAGES = 6  # segmentation labels opened to see which values they hold


@dataclass
class Audit:
    """What ``audit`` found in one dataset; the counts are over ``looked_at`` images.

    Attributes:
        name: Class and annotation file.
        images: Images the dataset gives.
        looked_at: How many of them were looked at in the time allowed.
        empty: Images without ground truth, or with ignored boxes only.
        degenerate: Boxes without area or with coordinates that are not finite; of COCO, those its
            loader left out.
        missing: Image files that do not exist or are empty.
        unknown: Name in the annotation files that is no class -> number of boxes (COCO, VOC), or
            label value -> pixels in a sample of the label images.
        absent: Classes that do not occur in the annotation files.
        notes: Further complaints, a sentence each.
    """

    name: str
    images: int
    looked_at: int = 0
    empty: int = 0
    degenerate: int = 0
    missing: list[str] = field(default_factory=list)
    unknown: dict[str, int | None] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether there is nothing to complain about; images without ground truth are fine."""
        return not (self.degenerate or self.missing or self.unknown or self.absent or self.notes)

    def __str__(self) -> str:
        part = f' (of {self.looked_at} looked at)' if self.looked_at < self.images else ''
        items = [f'{self.images} images{part}']
        if self.empty:
            items.append(f'{self.empty} without ground truth')
        if self.degenerate:
            items.append(f'{self.degenerate} degenerate boxes')
        if self.missing:
            items.append(f'{len(self.missing)} image files missing or empty: {_list(self.missing)}')
        if self.unknown:
            counted = [f'{k} ({"?" if v is None else v})' for k, v in self.unknown.items()]
            items.append(f'left out, not among the classes: {_list(counted)}')
        if self.absent:
            items.append(f'classes that never occur: {_list(self.absent)}')
        return '; '.join([f'{self.name}: {items[0]}', *items[1:], *self.notes])


def audit(dataset, budget: float = 2.0) -> list[Audit]:
    """Look a built dataset over, log one line per dataset and stop at what cannot be trained on.

    Reads what the dataset holds in memory, VOC's XML files, the class list of a COCO json and file
    sizes; images stay closed. When time runs out, a fair sample has been looked at.

    Args:
        dataset: A ``BaseDataset``, or wrappers around several.
        budget: Seconds for each dataset.

    Returns:
        One ``Audit`` per dataset inside the wrappers.

    Raises:
        FileNotFoundError: Annotations or image folders are missing, no image file could be found,
            or a segmentation label is missing.
        ValueError: The dataset is empty, or none of its classes occurs in the annotation file.
    """
    return [_audit(one, budget) for one in leaves(dataset)]


def leaves(dataset) -> Iterator:
    """The datasets inside ``ConcatDataset``, ``RepeatDataset`` and their kind; each one once."""
    seen: set[int] = set()
    stack = [dataset]
    while stack:
        one = stack.pop()
        children = getattr(one, 'datasets', None) or [getattr(one, 'dataset', None)]
        if children[0] is not None:
            stack += reversed(list(children))
        elif id(one) not in seen:
            seen.add(id(one))
            yield one


def degenerate(box) -> bool:
    """Whether a box (x1, y1, x2, y2) has no area or a coordinate that is not finite."""
    x1, y1, x2, y2 = box
    return not (x2 > x1 and y2 > y1 and math.isfinite(x1 + y1 + x2 + y2))


def describe(dataset) -> str:
    """Class and annotation file (or image folder) of a dataset, for messages."""
    paths = [getattr(dataset, 'ann_file', ''), *getattr(dataset, 'data_prefix', {}).values()]
    return f'{type(dataset).__name__} {next((path for path in paths if path), "")}'.strip()


def _audit(dataset, budget: float) -> Audit:
    deadline = time.monotonic() + budget
    if not hasattr(dataset, 'get_data_info'):
        return Audit(describe(dataset), len(dataset))
    check_files(dataset)
    if not len(dataset):
        raise ValueError(f'dataset {describe(dataset)} is empty')
    report = Audit(describe(dataset), len(dataset))
    local = (getattr(dataset, 'backend_args', None) or {}).get('backend', 'local') == 'local'
    names = read_names(dataset, time.monotonic() + budget / 2) if local else None
    check_names(dataset, names)
    _compare_names(report, dataset, names)
    _look_at_images(report, dataset, deadline, local)
    _look_at_labels(report, dataset, local)
    print_log(
        str(report), logger='current', level=logging.INFO if report.clean else logging.WARNING
    )
    return report


def _compare_names(report: Audit, dataset, names: Names | None) -> None:
    """Enter unknown and absent classes into the report."""
    classes = list(dataset.metainfo.get('classes') or ())
    if names is None or not classes:
        return
    counts = names.counts
    report.unknown = {k: v for k, v in counts.items() if k not in classes and v != 0}
    if names.complete:
        report.absent = [name for name in classes if counts.get(name, 0) == 0]
    if is_coco(dataset):
        listed = [name for name in counts if name in classes]
        if listed != classes:
            # CocoDataset numbers the classes as the file lists them, whatever the config says.
            report.notes.append(
                'the file lists other classes or another order than metainfo, so label i is class '
                f'i of {_list(listed)}: teacher and student must agree on that'
            )


def _look_at_images(report: Audit, dataset, deadline: float, local: bool) -> None:
    """Enter empty images, degenerate boxes and missing files; at least 16 images are looked at."""
    kept, ids = 0, set()
    for index in spread(len(dataset)):
        if report.looked_at >= 16 and time.monotonic() > deadline:
            break
        info = dataset.get_data_info(index)
        report.looked_at += 1
        path = info.get('img_path')
        if local and isinstance(path, str) and not _has_bytes(path):
            report.missing.append(path)
        if 'instances' in info:
            boxes = [one for one in info['instances'] if 'bbox' in one]
            kept += len(boxes)
            ids.add(info.get('img_id'))
            report.degenerate += sum(degenerate(one['bbox']) for one in boxes)
            report.empty += all(one.get('ignore_flag') for one in boxes)
    if len(report.missing) == report.looked_at:
        raise FileNotFoundError(
            f'dataset {report.name}: none of {report.looked_at} image files exists, for example '
            f'{os.path.abspath(report.missing[0])}; try data_root or data_prefix'
        )
    if len(ids) == len(dataset) and hasattr(dataset, 'cat_img_map'):
        # CocoDataset leaves bad boxes out without a word; the map still counts them.
        wanted = (key for cat in dataset.cat_ids for key in dataset.cat_img_map.get(cat, ()))
        report.degenerate += sum(key in ids for key in wanted) - kept


def _look_at_labels(report: Audit, dataset, local: bool) -> None:
    """Stop at missing labels; enter values that are neither a class nor ignored, which end a run.

    Existence is checked of up to 2,000 label images, values of a few.
    """
    loader = next((t for t in dataset.pipeline.transforms if getattr(t, 'with_seg', False)), None)
    classes = dataset.metainfo.get('classes')
    if loader is None or not classes or not hasattr(dataset, 'seg_map_suffix'):
        return
    ignored = getattr(dataset, 'ignore_index', 255)
    pixels = np.zeros(256, np.int64)
    for count, index in enumerate(list(spread(len(dataset)))[:2000]):
        info = dataset.get_data_info(index)
        path = info.get('seg_map_path')
        if local and path and not _has_bytes(path):
            raise FileNotFoundError(
                f'dataset {report.name}: label image {os.path.abspath(path)} is missing or empty; '
                'try data_prefix.seg_map_path or seg_map_suffix'
            )
        if path and count < LABEL_IMAGES:
            pixels += _label_values(loader, info)
    for value in np.flatnonzero(pixels):
        if value >= len(classes) and value != ignored:
            report.unknown[f'label {value}'] = int(pixels[value])
    if report.unknown:
        report.notes.append(f'labels must be below {len(classes)} or {ignored}: map them to it')


def _label_values(loader, info: dict) -> np.ndarray:
    """Pixels per label value of one image as the pipeline loads it, (256,) int64.

    Raises:
        ValueError: If the label image cannot be read.
    """
    try:
        labels = loader(dict(info, instances=[], seg_fields=[]))['gt_seg_map']
    except Exception as error:
        raise ValueError(f'label image {info["seg_map_path"]} cannot be read: {error}') from error
    return np.bincount(labels.reshape(-1) & 255, minlength=256)


def _has_bytes(path: str) -> bool:
    try:
        return '://' in path or os.stat(path).st_size > 0
    except OSError:
        return False


def _list(items, limit: int = 5) -> str:
    more = [f'and {len(items) - limit} more'] if len(items) > limit else []
    return ', '.join([*map(str, items[:limit]), *more])
