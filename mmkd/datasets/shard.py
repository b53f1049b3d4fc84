"""A part of a dataset, for runs that train on disjoint data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.dataset import BaseDataset

from mmkd.groups import GROUP, current
from mmkd.options import check_number
from mmkd.registry import DATASETS


@DATASETS.register_module()
def Shard(dataset: Any, index: int | str, of: int | None = None) -> BaseDataset:
    """Every ``of``-th sample of a dataset, from number ``index`` on.

    Datasets in class folders are sorted by class, so all shards have all classes alike. Shards of
    one ``of`` and unequal ``index`` are disjoint and make up the whole.

    Args:
        dataset (dict | BaseDataset): without wrappers around it; wrap the shard instead.
        index (int | str): which shard, from 0 to ``of - 1``; ``'group'`` is the number of the
            process' group under ``mmkd.Neighbours``, 0 where there are no groups.
        of (int | None): how many there are; None, with ``'group'``, is one for each group.

    Raises:
        ValueError: no such shard, or an empty one.
        TypeError: a wrapper, of which mmengine gives no part.
    """
    groups = current()
    if index == GROUP:
        index, count = (groups.index, groups.count) if groups else (0, 1)
        of = count if of is None else of
    of = check_number('Shard', 'of', of, 1, whole=True)
    index = check_number('Shard', 'index', index, 0, of - 1, whole=True)
    built = DATASETS.build(dataset) if isinstance(dataset, Mapping) else dataset
    if not isinstance(built, BaseDataset):
        raise TypeError(
            f'Shard takes a dataset without wrappers, found a {type(built).__name__}. Wrap the '
            'shard instead: dict(type="RepeatDataset", dataset=dict(type="mmkd.Shard", …)).'
        )
    built.full_init()
    chosen = list(range(index, len(built), of))
    if not chosen:
        raise ValueError(
            f'Shard: number {index} of {of} is empty, as the dataset has {len(built)} samples.'
        )
    if of > 1:
        built.get_subset_(chosen)
    return built
