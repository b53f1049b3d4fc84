"""Label images of segmentation datasets: whether they can be read, and their values."""

from __future__ import annotations

import os
import time
from typing import Any

import mmcv
import numpy as np
from mmengine import fileio

from mmkd.datasets._coco import DataError
from mmkd.datasets._failure import Failure
from mmkd.datasets._files import fault, shown, similar
from mmkd.datasets._kinds import shuffled
from mmkd.datasets._pictures import read_header

FILES = 2000  # label images whose existence is checked, whatever the time
OPENED = 6  # of which the values are looked at, beside those of unusual kind
SECONDS = 0.4  # for finding these


def look_at_labels(report: Any, dataset: Any, local: bool, deadline: float) -> None:
    """Stop at labels that no loss can use; report values that are neither a class nor ignored.

    Raises:
        FileNotFoundError: A label image cannot be read.
        DataError: A label image has colours, or values beyond what its loading step keeps.
    """
    loader = next((t for t in dataset.pipeline.transforms if getattr(t, 'with_seg', False)), None)
    if loader is None or not hasattr(dataset, 'seg_map_suffix'):
        return
    semantic = hasattr(dataset, 'reduce_zero_label')  # else labels need not be the classes
    pixels, kinds, start = np.zeros(256, np.int64), set(), time.monotonic()
    for count, index in enumerate(shuffled(len(dataset))):
        if count >= FILES and time.monotonic() > deadline and not dataset.test_mode:
            break
        info = dataset.get_data_info(index)
        path = info.get('seg_map_path')
        if not path:
            continue
        here = local and '://' not in path
        problem = fault(path) if here else ''
        if problem:
            raise FileNotFoundError(
                f'dataset {report.name}: label image {os.path.abspath(path)} cannot be read: '
                f'{problem}{similar(path)}; try data_prefix.seg_map_path or seg_map_suffix'
            )
        odd = here and time.monotonic() < start + SECONDS and _is_odd(path, kinds)
        if semantic and (count < OPENED or odd):
            values = _count_values(report.name, loader, info)
            pixels = np.pad(pixels, (0, max(0, len(values) - len(pixels))))
            pixels[: len(values)] += values
    _compare_values(report, dataset, pixels)


def _is_odd(path: str, kinds: set) -> bool:
    """Whether a label image is of a kind not met before, looks damaged, or may hold any number."""
    header = read_header(path)
    if header is None or not header.complete or header.kind[1] not in ('1', 'L', 'P'):
        return True
    known = header.kind in kinds
    kinds.add(header.kind)
    return not known


def _compare_values(report: Any, dataset: Any, pixels: np.ndarray) -> None:
    """Enter values that are neither a class nor ignored, or that all pixels are ignored."""
    classes = len(dataset.metainfo.get('classes') or ())
    ignored = getattr(dataset, 'ignore_index', 255)
    if not classes or not pixels.any():
        return
    for value in np.flatnonzero(pixels):
        if value >= classes and value != ignored:
            report.unknown[f'label {value}'] = int(pixels[value])
    if report.unknown:
        report.notes.append(f'labels must be below {classes} or {ignored}: map them to it')
    if set(np.flatnonzero(pixels)) == {ignored}:
        report.notes.append(f'all pixels of the label images looked at are ignored ({ignored})')


def _count_values(name: str, loader: Any, info: dict) -> np.ndarray:
    """Pixels per label value of one image as the pipeline loads it, (V,) int64.

    Raises:
        DataError: It cannot be decoded, has colours, or values that the loading step cuts off.
    """
    path = info['seg_map_path']
    where = f'dataset {name}: label image {os.path.abspath(path)}'
    try:
        stored = _stored(loader, path)
        labels = loader(dict(info, instances=[], seg_fields=[]))['gt_seg_map']
    except Exception as error:
        raise DataError(f'{where}: {Failure(path, "label image", error).reason}') from error
    if labels.ndim != 2:
        palette = f'; {_PALETTE}' if getattr(loader, 'imdecode_backend', '') == 'cv2' else ''
        raise DataError(
            f'{where} has {labels.shape[-1]} channels, where one number per pixel is needed. '
            f'Convert the colours to class numbers, in grey or palette PNGs{palette}'
        )
    lost = _cut_off(stored, labels)
    if len(lost):
        raise DataError(
            f'{where} holds values above {np.iinfo(labels.dtype).max} ({shown(lost, 3)}), of which '
            f'{type(loader).__name__} keeps only the low bits. Load them with '
            "type='mmkd.LoadLabelMap', or map them to class numbers below it"
        )
    labels = labels.reshape(-1).astype(np.int64)
    if labels.min() < 0:
        raise DataError(f'{where} holds negative values, down to {labels.min()}')
    return np.bincount(labels, minlength=256)


def _cut_off(stored: np.ndarray | None, labels: np.ndarray) -> np.ndarray:
    """Values that a cast to the type of ``labels`` makes others, sorted."""
    if stored is None or {stored.dtype.kind, labels.dtype.kind} - set('iu'):
        return np.empty(0)
    values = np.unique(stored[stored > np.iinfo(labels.dtype).max])
    # All bits set mean "ignore", and still do after the cast.
    return values[values != np.iinfo(stored.dtype).max]


_PALETTE = "of a palette PNG the numbers are read with imdecode_backend='pillow'"


def _stored(loader: Any, path: str) -> np.ndarray | None:
    """The file's own values, before a loading step casts them; None if they are not known."""
    backend = getattr(loader, 'imdecode_backend', None)
    if backend is None:
        return None
    content = fileio.get(path, backend_args=getattr(loader, 'backend_args', None))
    return mmcv.imfrombytes(content, flag='unchanged', backend=backend)
