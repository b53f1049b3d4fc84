"""Samplers for methods that compare the images of one batch with each other."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sized
from logging import WARNING
from typing import Any

import torch
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.logging import print_log
from torch import Tensor
from torch.utils.data import Sampler

from mmkd.checkpoint import read_file
from mmkd.functional.clustering import kmeans, nearest
from mmkd.names import no_file
from mmkd.options import check_number
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


def common_seed(owner: str, seed: int | None) -> int:
    """The given seed, or one that all ranks draw together.

    Raises:
        ValueError: no whole number of at least 0.
    """
    seed = check_number(owner, 'seed', seed, 0, whole=True, optional=True)
    return sync_random_seed() if seed is None else seed


@DATA_SAMPLERS.register_module()
class ClassPairSampler(Sampler[int]):
    """Batches of anchors, then in the same order a partner of the same class for each (CSKD).

    An epoch takes every image once as an anchor. The partner is any image of its class, the anchor
    itself among them, as in alinlab/cs-kd. A rank draws partners for its own anchors.

    Args:
        dataset (Sized): of classified images.
        batch_size (int): that of the dataloader, even: anchors and partners together.
        seed (int | None): the same on all ranks.

    Raises:
        ValueError: an odd batch size; a dataset without class labels.
    """

    def __init__(self, dataset: Sized, batch_size: int, seed: int | None = None) -> None:
        batch_size = check_number('ClassPairSampler', 'batch_size', batch_size, 1, whole=True)
        if batch_size % 2:
            raise ValueError(
                f'ClassPairSampler makes pairs: batch_size must be even, found {batch_size}.'
            )
        self.rank, self.world_size = get_dist_info()
        self.labels = labels_of(dataset)
        if alone := int((torch.bincount(self.labels) == 1).sum()):
            text = f'ClassPairSampler: {alone} classes have one image, which is its own partner.'
            print_log(text, 'current', WARNING)
        self.half = batch_size // 2
        self.seed = common_seed('sampler', seed)
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
        """Any image of each anchor's class: a step of random length around the class."""
        order = self.labels.argsort(stable=True)
        counts = torch.bincount(self.labels)
        starts = counts.cumsum(0) - counts
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order)) - starts[self.labels[order]]
        start, count = starts[self.labels[anchors]], counts[self.labels[anchors]]
        drawn = torch.rand(len(anchors), generator=generator)
        step = (drawn * count).long()
        return order[start + (place[anchors] + step) % count]

    @property
    def _count(self) -> int:
        return -(-len(self.labels) // self.world_size)

    def __len__(self) -> int:
        return 2 * self._count

    def set_epoch(self, epoch: int) -> None:
        """Draw other batches in every epoch."""
        self.epoch = epoch


class _GroupSampler(Sampler[int]):
    """Batches of equally many images from each of some groups, of which no one comes twice.

    A rank draws its own. An image comes twice only where its group is smaller than ``per_class``.
    """

    def __init__(
        self, groups: Tensor, batch_size: int, per_class: int, seed: int | None, kind: str
    ) -> None:
        owner = type(self).__name__
        per_class = check_number(owner, 'per_class', per_class, 1, whole=True)
        batch_size = check_number(owner, 'batch_size', batch_size, 1, whole=True)
        if batch_size % per_class:
            raise ValueError(
                f'{owner}: batch_size must be a multiple of per_class, found {batch_size} and '
                f'{per_class}.'
            )
        self.members = [(groups == g).nonzero()[:, 0] for g in groups.unique().tolist()]
        self.drawn, self.per_class = batch_size // per_class, per_class
        if self.drawn > len(self.members):
            raise ValueError(
                f'{owner}: a batch of {batch_size} has {per_class} images each of {self.drawn} '
                f'{kind}, but there are {len(self.members)}. Raise per_class or lower batch_size.'
            )
        self.rank, world_size = get_dist_info()
        self.batches = max(len(groups) // (world_size * batch_size), 1)
        self.seed = common_seed('sampler', seed)
        self.epoch = 0

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed((self.seed + self.epoch) * 997 + self.rank)
        for _ in range(self.batches):
            chosen = torch.randperm(len(self.members), generator=generator)[: self.drawn]
            for group in chosen.tolist():
                members = self.members[group]
                order = torch.randperm(len(members), generator=generator)
                order = order.repeat(-(-self.per_class // len(members)))[: self.per_class]
                yield from members[order].tolist()

    def __len__(self) -> int:
        return self.batches * self.drawn * self.per_class

    def set_epoch(self, epoch: int) -> None:
        """Draw other batches in every epoch."""
        self.epoch = epoch


@DATA_SAMPLERS.register_module()
class ClassUniformSampler(_GroupSampler):
    """Batches of ``per_class`` images from each of ``batch_size / per_class`` random classes.

    For CCKD (Peng et al., ICCV 2019) and TripletDistillation. Images of large classes are rarer.

    Args:
        dataset (Sized): of classified images.
        batch_size (int): that of the dataloader.
        per_class (int): images of each class.
        seed (int | None): the same on all ranks.

    Raises:
        ValueError: a batch size that is no multiple of ``per_class``; too few classes; no labels.
    """

    def __init__(
        self, dataset: Sized, batch_size: int, per_class: int = 8, seed: int | None = None
    ) -> None:
        super().__init__(labels_of(dataset), batch_size, per_class, seed, 'classes')


@DATA_SAMPLERS.register_module()
class SuperClassUniformSampler(_GroupSampler):
    """As :class:`ClassUniformSampler`, with clusters of the teacher's embeddings as classes.

    They are found by k-means (Peng et al., ICCV 2019) from embeddings that are written once::

        from mmkd.datasets.embeddings import teacher_embeddings
        torch.save(teacher_embeddings('teacher_config.py', 'teacher.pth'), 'embeddings.pth')

    Args:
        embeddings (str): file with a tensor (len(dataset), D).
        clusters (int): how many; some may stay empty.
        dataset, batch_size, per_class, seed: as above.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file of something else; otherwise as above.
    """

    def __init__(
        self,
        dataset: Sized,
        batch_size: int,
        embeddings: str,
        clusters: int = 20,
        per_class: int = 8,
        seed: int | None = None,
    ) -> None:
        if not os.path.isfile(embeddings):
            raise FileNotFoundError(
                f'SuperClassUniformSampler: {no_file(embeddings, ".pt", ".pth")} Write it once '
                'with mmkd.datasets.embeddings.teacher_embeddings.'
            )
        found = read_file(embeddings, 'cpu')
        shape = getattr(found, 'shape', ())
        if len(shape) != 2 or shape[0] != len(dataset):
            raise ValueError(
                f'SuperClassUniformSampler: {embeddings} must hold a tensor ({len(dataset)}, D), '
                f'an embedding of each image, found {tuple(shape) or type(found).__name__}. Write '
                'it anew with mmkd.datasets.embeddings.teacher_embeddings.'
            )
        seed = common_seed('sampler', seed)
        clusters = check_number('SuperClassUniformSampler', 'clusters', clusters, 1, whole=True)
        some = found[:: max(len(found) // 10_000, 1)]  # enough for centroids
        centroids = kmeans(some, clusters, seed)
        groups = torch.cat([nearest(part.float(), centroids) for part in found.split(4096)])
        super().__init__(groups, batch_size, per_class, seed, 'clusters')
