"""Why a dataset cannot be built: the file and the entry, found after its loader has failed."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Iterator
from typing import Any

from mmkd.datasets import _coco, _voc
from mmkd.datasets._coco import DataError, watched
from mmkd.datasets._files import fault, is_remote
from mmkd.datasets._kinds import describe, is_coco, is_voc
from mmkd.errors.origin import short

OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@contextlib.contextmanager
def building() -> Iterator[None]:
    """Give the error of a dataset that cannot be loaded the name of the file and of the entry.

    Nothing is read beforehand: files are searched for a fault only after a loader has failed.

    Raises:
        DataError: in place of an error of the loader.
        ImportError: a package that the loader needs is not installed.
    """
    try:
        with watched():
            yield
    except (DataError, MemoryError):
        raise
    except Exception as error:
        dataset = failed_dataset(error)
        if dataset is None or not hasattr(dataset, 'ann_file'):
            raise
        if isinstance(error, ImportError):
            raise ImportError(
                f'dataset {describe(dataset)}: to load it takes a package that is not installed: '
                f'{error}'
            ) from error
        message = find_fault(dataset)
        if message:
            raise DataError(f'dataset {type(dataset).__name__}: {message}') from error
        if not _cause(error):
            raise
        raise DataError(
            f'dataset {describe(dataset)}: it cannot be loaded: {_cause(error)}'
        ) from error


def failed_dataset(error: Exception) -> Any:
    """The dataset in whose loading an error was raised; None if it was not there."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    inside = [one.f_locals.get('self') for one in frames if one.f_code.co_name == 'full_init']
    return inside[-1] if inside else None


def find_fault(dataset: Any) -> str:
    """Errors in the files of a dataset that could not be loaded; '' if none is found.

    Args:
        dataset: A ``BaseDataset`` whose ``full_init`` failed.
    """
    path = dataset.ann_file
    if is_remote(path or '', vars(dataset)):
        return ''
    if path and fault(path) and not os.path.isdir(path):
        return f'annotation file {path} cannot be read: {fault(path)}'
    if is_voc(dataset):
        classes = dataset.metainfo.get('classes') or ()
        for name, one in _voc.voc_files(dataset).items():
            image = os.path.join(dataset.sub_data_root, dataset.img_subdir, f'{name}.jpg')
            problem = _voc.find_fault(one, classes, image)
            if problem:
                return f'annotation file {one}: {problem}'
    elif path and path.endswith('.json'):
        problem = _coco.find_fault(path) if _is_plain_coco(dataset) else _coco.read_json(path)[1]
        if problem:
            return f'annotation file {path}: {problem}'
    return _nothing_left(dataset)


def _is_plain_coco(dataset: Any) -> bool:
    """Whether the file has COCO's own layout, unlike LVIS or panoptic files."""
    from pycocotools.coco import COCO

    kind = getattr(dataset, 'COCOAPI', None)
    return is_coco(dataset) and getattr(kind, 'createIndex', None) is COCO.createIndex


def _nothing_left(dataset: Any) -> str:
    """Say so if there is no image, or none after filtering: mmengine fails at that in numpy."""
    if dataset.data_list:
        return ''
    try:
        listed = dataset.load_data_list()
    except Exception:
        return ''
    source = dataset.ann_file or ', '.join(filter(None, dataset.data_prefix.values()))
    if not listed:
        return f'{source} lists no image'
    counts = [len(one.get('instances', ())) for one in listed if isinstance(one, dict)]
    settings = dict(filter_cfg=dataset.filter_cfg, indices=dataset._indices)
    given = ', '.join(f'{key}={value}' for key, value in settings.items() if value is not None)
    return (
        f'{given} leaves none of the {len(listed)} images of {source}; {sum(map(bool, counts))} of '
        f'them have objects of its classes, {sum(counts)} in all'
    )


def _cause(error: Exception) -> str:
    """The loader's message and its place in the source; '' for messages of mmkd."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    if frame.filename.startswith(OWN):
        return ''
    return f'{type(error).__name__}: {error} (at {short(frame.filename)}:{frame.lineno})'
