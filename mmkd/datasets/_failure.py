"""An entry of a dataset that does not get through its pipeline: which file, and why."""

from __future__ import annotations

import os
import stat
import traceback
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset

from mmkd.datasets._coco import DataError
from mmkd.datasets._files import fault
from mmkd.datasets._kinds import describe
from mmkd.errors.origin import short


def prepare(dataset: Any, index: int) -> tuple[Any, Failure | None]:
    """``dataset.prepare_data(index)`` of its class; an error names the image and the step.

    What is no regular file is not opened. Good entries are loaded as ever.

    Returns:
        The sample, and None; or None and the unreadable image of a training dataset.

    Raises:
        DataError: A label, an image of test data or another step of the pipeline failed.
        ImportError: A step needs a package that is not installed.
    """
    try:
        data = _prepare(dataset, index)
        failure = find_failure(dataset, index) if data is None and dataset.test_mode else None
        cause = None
    except MemoryError:
        raise
    except ImportError as error:
        raise ImportError(
            f'dataset {describe(dataset)}: its pipeline needs a package that is not installed: '
            f'{error}'
        ) from error
    except Exception as error:
        data, failure, cause = None, find_failure(dataset, index), error
        if failure is None:
            raise DataError(_step_failure(dataset, index, error)) from error
    if failure is not None and (dataset.test_mode or failure.kind != 'image'):
        raise DataError(failure.message(dataset)) from cause
    return data, failure


def _prepare(dataset: Any, index: int) -> Any:
    if type(dataset).prepare_data is not BaseDataset.prepare_data:
        return type(dataset).prepare_data(dataset, index)
    info = dataset.get_data_info(index)
    for key in ('img_path', 'seg_map_path'):
        if _is_special(info.get(key)):
            raise OSError(info[key])  # find_failure() says why
    return dataset.pipeline(info)


def _is_special(path: Any) -> bool:
    """Whether a path exists and is no regular file: reading a device or a pipe may never end."""
    if not isinstance(path, str):
        return False
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


#: loads nothing from the file of the image, so an error says nothing about that
ELSEWHERE = 'LoadProposals'


class Failure:
    """A file, or the annotations of an image, that a loading step could not read."""

    def __init__(self, path: str, kind: str, error: Exception | None, reason: str = '') -> None:
        self.path, self.kind = path, kind
        if reason:
            self.reason = reason
            return
        said = error is not None and path not in str(error) and 'BytesIO' not in str(error)
        detail = f' ({type(error).__name__}: {error})' if said else ''
        problem = '' if '://' in path else fault(path)
        # A key of a database looks like a path, too.
        if problem and (problem != 'no such file' or isinstance(error, (OSError, type(None)))):
            self.reason = problem
        else:
            self.reason = f'it cannot be {"loaded" if "://" in path else "decoded"}{detail}'

    def message(self, dataset: Any) -> str:
        """The failure in a sentence."""
        return (
            f'dataset {describe(dataset)}: {self.kind} {os.path.abspath(self.path)}: '
            f'{self.reason}; replace the file or take it out of the annotations'
        )


def find_failure(dataset: Any, index: int) -> Failure | None:
    """Run the loading steps once more, to find out whether one of them failed.

    Of an image of one pixel's width or height other steps make what no tensor can be made of.
    """
    info = dataset.get_data_info(index)
    for transform in getattr(dataset.pipeline, 'transforms', ()):
        name = type(transform).__name__
        if not name.startswith('Load') or name == ELSEWHERE:
            continue
        kind = 'image'
        if hasattr(transform, 'with_seg'):
            kind = 'label image' if transform.with_seg else 'annotations of image'
        path = str(info.get('seg_map_path' if kind == 'label image' else 'img_path'))
        if _is_special(path):
            return Failure(path, kind, None)
        try:
            info = transform(info)
        except Exception as error:
            return Failure(path, kind, error)
        if info is None:
            return Failure(path, kind, None)
        if kind == 'image' and 1 in np.shape(info.get('img'))[:2]:
            return Failure(path, kind, None, 'it is one pixel wide or high, which a step refuses')
    return None


def _step_failure(dataset: Any, index: int, error: Exception) -> str:
    """The image for which a step failed, and the message of the step."""
    info = dataset.get_data_info(index)
    size = f', {info["width"]} x {info["height"]} pixels' if info.get('width') else ''
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = short(frame.filename)
    return (
        f'dataset {describe(dataset)}: image {info.get("img_path")} (index {index}{size}) does not '
        f'get through the pipeline: {type(error).__name__}: {error} (at {place}:{frame.lineno})'
    )
