"""Samplers for methods that compare the images of one batch with each other."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any

import torch
from mmengine.dist import get_dist_info, sync_random_seed
from torch import Tensor
from torch.utils.data import Sampler

from mmkd.registry import DATA_SAMPLERS


def labels_of(dataset: Any) -> Tensor:
    """Class of every image of a dataset or of a wrapper around one, (len,) long.

    Raises:
        ValueError: a dataset whose entries hold no ``gt_label``.
    """
    entries = [dataset.get_data_info(index) for index in range(len(dataset))]
    if any('gt_label' not in entry for entry in entries):
        raise ValueError(
            f'The sampler needs the class of every image, but entries of {type(dataset).__name__} '
            'have no gt_label. It works with datasets of classified images, e.g. mmkd.ClassFolders.'
        )
    return torch.tensor([int(entry['gt_label']) for entry in entries])


@DATA_SAMPLERS.register_module()
class ClassPairSampler(Sampler[int]):
    """Batches of anchors, then in the same order a partner of the same class for each (CSKD).

    An epoch takes every image once as an anchor. The partner is any image of the class, the anchor
    itself only where the class has no other. A rank draws partners for its own anchors.

    Args:
        dataset (Sized): of classified images.
        batch_size (int): that of the dataloader, even: anchors and partners together.
        seed (int | None): the same on all ranks.

    Raises:
        ValueError: an odd batch size; a dataset without class labels.
    """

    def __init__(self, dataset: Sized, batch_size: int, seed: int | None = None) -> None:
        if batch_size < 2 or batch_size % 2:
            raise ValueError(
                f'ClassPairSampler makes pairs: batch_size must be even, found {batch_size}.'
            )
        self.rank, self.world_size = get_dist_info()
        self.labels = labels_of(dataset)
        self.half = batch_size // 2
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0

    def __iter__(self) -> Iterator[int]:
        order = torch.Generator().manual_seed(self.seed + self.epoch)
        anchors = torch.randperm(len(self.labels), generator=order)
        anchors = anchors.repeat(2)[: self._count * self.world_size]
        anchors = anchors[self.rank :: self.world_size]
        own = torch.Generator().manual_seed((self.seed + self.epoch) * 997 + self.rank)
        partners = self._partners(anchors, own)
        for part in zip(anchors.split(self.half), partners.split(self.half), strict=True):
            yield from torch.cat(part).tolist()

    def _partners(self, anchors: Tensor, generator: torch.Generator) -> Tensor:
        """Another image of each anchor's class: a step of random length around the class."""
        order = self.labels.argsort(stable=True)
        counts = torch.bincount(self.labels)
        starts = counts.cumsum(0) - counts
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order)) - starts[self.labels[order]]
        start, count = starts[self.labels[anchors]], counts[self.labels[anchors]]
        drawn = torch.rand(len(anchors), generator=generator)
        step = 1 + (drawn * (count - 1)).long()
        return order[start + (place[anchors] + step) % count]

    @property
    def _count(self) -> int:
        return -(-len(self.labels) // self.world_size)

    def __len__(self) -> int:
        return 2 * self._count

    def set_epoch(self, epoch: int) -> None:
        """Draw other batches in every epoch."""
        self.epoch = epoch
