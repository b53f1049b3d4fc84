"""Checks data before a run, and keeps bad images from ending it.

Before building: ``check_paths(cfg)``. While building: ``with building():``. On the built dataset:
``protect(dataset)``, which is ``audit``, ``drop_degenerate_boxes``, ``tolerate`` and
``try_pipeline``, and ``check_objects`` of its result. Good data is left alone, bit for bit.
"""

from __future__ import annotations

import copy
import logging
import pickle
from collections.abc import Iterable

import numpy as np
import torch
from mmengine.logging import print_log

from mmkd.datasets._audit import Audit, audit
from mmkd.datasets._coco import DataError
from mmkd.datasets._explain import building
from mmkd.datasets._failure import Failure, prepare
from mmkd.datasets._files import shown
from mmkd.datasets._kinds import describe, leaves
from mmkd.datasets._objects import usable
from mmkd.datasets._paths import check_evaluator, check_paths
from mmkd.untouched import untouched_random_state

__all__ = [
    'Audit',
    'DataError',
    'audit',
    'building',
    'check_evaluator',
    'check_objects',
    'check_paths',
    'describe',
    'drop_degenerate_boxes',
    'leaves',
    'protect',
    'skipped',
    'tolerate',
    'try_pipeline',
]

NAMED = 3  # bad images that are named one by one
GIVE_UP = 100  # unreadable images in a row after which the whole dataset is taken to be bad


def protect(dataset, budget: float = 2.0) -> list[Audit]:
    """Audit a built dataset, drop its degenerate boxes and make it skip unreadable images.

    Then the pipeline is tried on the image of the most extreme shape. Errors are those of
    ``audit`` and of the pipeline. Applying it twice does no harm.
    """
    reports = audit(dataset, budget)
    for one, report in zip(leaves(dataset), reports, strict=True):
        drop_degenerate_boxes(one, report.objects.bad)
    tolerate(dataset)
    for one, report in zip(leaves(dataset), reports, strict=True):
        try_pipeline(one, report.longest[1])
    return reports


def check_objects(reports: list[Audit]) -> None:
    """Stop if a detector's dataset has no object at all; parts of it may be without.

    Raises:
        DataError: With what became of the annotations.
    """
    objects = [one.objects for one in reports if one.objects.images]
    if not objects or any(one.kept for one in objects):
        return
    causes = {
        'are crowd, ignored or difficult': sum(one.ignored for one in objects),
        'have no area': sum(one.degenerate for one in reports),
        'have names that are no class': sum(
            n or 0 for one in reports for n in one.unknown.values()
        ),
    }
    found = shown(f'{count} {why}' for why, count in causes.items() if count)
    raise DataError(
        f'no object in the whole dataset {shown((one.name for one in reports), 2)}: none of '
        f'{sum(one.images for one in objects)} images has one to learn from or to find. Boxes '
        f'there: {found or "none"}'
    )


def drop_degenerate_boxes(dataset, positions: Iterable[int] | None = None) -> int:
    """Take boxes without area or finite coordinates out of training datasets, in place.

    COCO's loader leaves them out anyway; VOC's does not, and with RetinaNet's assigner a box of no
    width becomes a regression target of minus infinity. Boxes that lie outside the image are of
    the kind, for ``Resize`` clips them to no width. Test datasets stay as they are, so that
    scores equal the stock ones.

    Args:
        dataset: A ``BaseDataset``, or wrappers around several.
        positions: The images to look at, where it is a single dataset; all by default.

    Returns:
        Boxes dropped; a warning is logged if there were any.
    """
    total = 0
    for one in leaves(dataset):
        if getattr(one, 'test_mode', True) or not hasattr(one, 'get_data_info'):
            continue
        changed = {}
        for index in range(len(one)) if positions is None else positions:
            info = one.get_data_info(index)
            good = [box for box in info.get('instances', ()) if usable(box, info)]
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
    and in both an unreadable label, or an image at which a later step fails, is a ``DataError``
    that names the file; a package that a step lacks is an ``ImportError``. Pipelines stay as
    they are and may be exchanged later; good images are loaded as ever, with the same random
    numbers.

    Args:
        dataset: A ``BaseDataset``, or wrappers around several; changed in place.
    """
    for one in leaves(dataset):
        if hasattr(one, 'prepare_data') and not isinstance(one.prepare_data, _Prepare):
            one.prepare_data = _Prepare(one)


def try_pipeline(dataset, index: int) -> None:
    """Take one entry through a copy of the pipeline; random numbers stay as they were.

    Raises:
        DataError, ImportError: See ``tolerate``; an unreadable training image is no error.
    """
    if not hasattr(dataset, 'get_data_info') or not hasattr(dataset, 'pipeline'):
        return
    twin = copy.copy(dataset)
    with untouched_random_state():
        twin.pipeline = copy.deepcopy(dataset.pipeline)
        prepare(twin, index)


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
        data, failure = prepare(self.dataset, index)
        if failure is not None:
            self._note(index, failure)
            return None
        self.in_a_row = 0
        return data

    def _note(self, index: int, failure: Failure) -> None:
        """Count a skipped image and log it, unless it was logged before."""
        self.in_a_row += 1
        if self.in_a_row >= min(GIVE_UP, 10 * len(self.bad)):
            raise DataError(
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
