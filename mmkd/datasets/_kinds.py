"""Which datasets there are: those inside wrappers, of COCO's kind, of VOC's."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def leaves(dataset) -> Iterator:
    """The datasets inside ``ConcatDataset``, ``RepeatDataset`` and their kind; each one once."""
    seen: set[int] = set()
    stack = [dataset]
    while stack:
        one = stack.pop()
        if '_dataset' in vars(one):  # mmengine's, for num_batch_per_epoch
            stack.append(one._dataset)
            continue
        children = getattr(one, 'datasets', None) or [getattr(one, 'dataset', None)]
        if children[0] is not None:
            stack += reversed(list(children))
        elif id(one) not in seen:
            seen.add(id(one))
            yield one


def loads_masks(dataset) -> bool | None:
    """Whether any pipeline loads masks of objects; None if no step of them tells."""
    steps = [step for one in leaves(dataset) for step in _steps(one)]
    told = [step.with_mask for step in steps if hasattr(step, 'with_mask')]
    return any(told) if told else None


def _steps(dataset) -> list:
    return list(getattr(getattr(dataset, 'pipeline', None), 'transforms', ()))


def describe(dataset) -> str:
    """Class and annotation file (or image folder) of a dataset, for messages."""
    paths = [getattr(dataset, 'ann_file', ''), *getattr(dataset, 'data_prefix', {}).values()]
    return f'{type(dataset).__name__} {next((path for path in paths if path), "")}'.strip()


def shuffled(count: int) -> Iterator[int]:
    """0 to count - 1 in a fixed shuffled order: any beginning of it is a fair sample."""
    yield from np.random.default_rng(0).permutation(count).tolist()


def is_coco(dataset) -> bool:
    """Whether a dataset reads COCO's json: it has the methods of mmdet's CocoDataset."""
    return hasattr(type(dataset), 'COCOAPI')


def is_voc(dataset) -> bool:
    """Whether a dataset reads VOC's XML files: it has the methods of mmdet's XMLDataset.

    Subclasses with a reader of their own, such as WIDERFaceDataset, have other folders.
    """
    kind = type(dataset)
    owner = next((one for one in kind.__mro__ if 'sub_data_root' in vars(one)), None)
    return owner is not None and kind.load_data_list is getattr(owner, 'load_data_list', None)
