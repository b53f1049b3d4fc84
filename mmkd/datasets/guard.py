"""Keeps bad data from ending a run, and says what is wrong with it.

Before building: ``check_paths(cfg)``. On the built dataset: ``protect(dataset)``, which is
``drop_degenerate_boxes``, ``tolerate`` and ``audit``. Good data is left alone, bit for bit.
"""

from __future__ import annotations

import logging
import os
import pickle

import numpy as np
import torch
from mmengine.logging import print_log

from mmkd.datasets._audit import Audit, audit, degenerate, describe, leaves
from mmkd.datasets._paths import check_evaluator, check_paths

__all__ = [
    'Audit',
    'audit',
    'check_evaluator',
    'check_paths',
    'drop_degenerate_boxes',
    'leaves',
    'protect',
    'skipped',
    'tolerate',
]

NAMED = 3  # bad images that are named one by one
GIVE_UP = 100  # unreadable images in a row after which the whole dataset is taken to be bad


def protect(dataset, budget: float = 2.0) -> list[Audit]:
    """Audit a built dataset, drop its degenerate boxes and make it skip unreadable images.

    Errors are those of ``audit``. Applying it twice does no harm.
    """
    reports = audit(dataset, budget)
    drop_degenerate_boxes(dataset)
    tolerate(dataset)
    return reports


def drop_degenerate_boxes(dataset) -> int:
    """Take boxes without area or finite coordinates out of training datasets, in place.

    COCO's loader leaves them out anyway; VOC's does not, and with RetinaNet's assigner a box of no
    width becomes a regression target of minus infinity. Boxes that lie outside the image are of
    the kind, for ``Resize`` clips them to no width. Test datasets stay as they are, so that
    scores equal the stock ones.

    Returns:
        Boxes dropped; a warning is logged if there were any.
    """
    total = 0
    for one in leaves(dataset):
        if getattr(one, 'test_mode', True) or not hasattr(one, 'get_data_info'):
            continue
        changed = {}
        for index in range(len(one)):
            info = one.get_data_info(index)
            good = [box for box in info.get('instances', ()) if _usable(box, info)]
            if len(good) < len(info.get('instances', ())):
                total += len(info['instances']) - len(good)
                info.pop('sample_idx')
                changed[index] = dict(info, instances=good)
        if changed:
            _replace(one, changed)
            files = [str(info.get('img_path')) for info in changed.values()]
            print_log(
                f'{describe(one)}: degenerate boxes dropped in {len(files)} image(s): '
                f'{", ".join(files[:NAMED])}',
                logger='current',
                level=logging.WARNING,
            )
    return total


def _usable(instance: dict, info: dict) -> bool:
    """Whether a box has area inside its image; what has no box is usable."""
    if 'bbox' not in instance:
        return True
    x1, y1, x2, y2 = instance['bbox']
    width, height = info.get('width') or np.inf, info.get('height') or np.inf
    return not degenerate(instance['bbox']) and x1 < width and y1 < height and x2 > 0 and y2 > 0


def _replace(dataset, changed: dict[int, dict]) -> None:
    """Put new data infos in place, serialised if the dataset keeps them so."""
    if not dataset.serialize_data:
        for index, info in changed.items():
            dataset.data_list[index] = info
        return
    pieces = np.split(dataset.data_bytes, dataset.data_address[:-1])
    for index, info in changed.items():
        pieces[index] = np.frombuffer(pickle.dumps(info, protocol=4), np.uint8)
    dataset.data_bytes = np.concatenate(pieces)
    dataset.data_address = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)


def tolerate(dataset) -> None:
    """Make training skip images that cannot be read, and testing name them.

    In training another image is drawn instead, which is what mmengine does when a pipeline gives
    None; the first few files are named in the log, then counts. In testing an unreadable image
    and in both an unreadable label is a ``ValueError`` that names the file. Pipelines stay as
    they are and may be exchanged later; good images are loaded as ever, with the same random
    numbers.

    Args:
        dataset: A ``BaseDataset``, or wrappers around several; changed in place.
    """
    for one in leaves(dataset):
        if hasattr(one, 'prepare_data') and not isinstance(one.prepare_data, _Prepare):
            one.prepare_data = _Prepare(one)


def skipped(dataset) -> int:
    """Distinct images skipped so far, by all workers of the data loader, under ``tolerate``."""
    guards = (vars(one).get('prepare_data') for one in leaves(dataset))
    return sum(int(one.bad.sum()) for one in guards if isinstance(one, _Prepare))


class _Prepare:
    """Stands in for ``dataset.prepare_data``, as an attribute of that one dataset."""

    def __init__(self, dataset) -> None:
        self.dataset = dataset
        # Shared memory: workers are forked or spawned anew every epoch, the counts must last.
        self.bad = torch.zeros(len(dataset), dtype=torch.uint8).share_memory_()
        self.in_a_row = 0

    def __call__(self, index: int):
        dataset = self.dataset
        try:
            data = type(dataset).prepare_data(dataset, index)
        except Exception as error:
            failure = _find_failure(dataset, index)
            if failure is None:
                raise
            if dataset.test_mode or not failure.image:
                raise ValueError(failure.message(dataset)) from error
            self._note(index, failure)
            return None
        if data is None and dataset.test_mode:
            failure = _find_failure(dataset, index)
            if failure is not None:
                raise ValueError(failure.message(dataset))
        self.in_a_row = 0
        return data

    def _note(self, index: int, failure: _Failure) -> None:
        """Count a skipped image and log it, unless it was logged before."""
        self.in_a_row += 1
        if self.in_a_row >= min(GIVE_UP, 10 * len(self.bad)):
            raise ValueError(
                f'{self.in_a_row} images in a row cannot be read; the last: '
                f'{failure.message(self.dataset)}'
            )
        new = not self.bad[index]
        self.bad[index] = 1
        count = int(self.bad.sum())
        if new and (count <= NAMED or count in (10, 100, 1000, 10000)):
            print_log(
                f'skipped {failure.path}: {failure.reason} ({count} image(s) skipped so far)',
                logger='current',
                level=logging.WARNING,
            )


class _Failure:
    """A file that a loading step could not read."""

    def __init__(self, path: str, image: bool, error: Exception | None) -> None:
        self.path, self.image = path, image
        detail = '' if path in str(error) else f' ({type(error).__name__}: {error})'
        if '://' in path:
            self.reason = f'it cannot be loaded{detail}'
        elif not os.path.exists(path):
            self.reason = 'no such file'
        elif not os.path.getsize(path):
            self.reason = 'the file is empty'
        else:
            self.reason = f'it cannot be decoded{detail}'

    def message(self, dataset) -> str:
        kind = 'image' if self.image else 'label'
        return (
            f'dataset {describe(dataset)}: {kind} {os.path.abspath(self.path)}: {self.reason}; '
            f'replace the file or take it out of the annotations'
        )


def _find_failure(dataset, index: int) -> _Failure | None:
    """Run the loading steps once more, to see whether one of them is what failed."""
    info = dataset.get_data_info(index)
    for transform in getattr(dataset.pipeline, 'transforms', ()):
        if not type(transform).__name__.startswith('Load'):
            continue
        image = not hasattr(transform, 'with_seg')
        path = str(info.get('img_path' if image else 'seg_map_path') or info.get('img_path'))
        try:
            info = transform(info)
        except Exception as error:
            return _Failure(path, image, error)
        if info is None:
            return _Failure(path, image, None)
    return None
