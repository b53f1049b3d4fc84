"""Images without labels: a folder, a dataset whose labels are dropped, and mixed batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized
from pathlib import Path
from typing import Any

import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset, ConcatDataset
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from mmkd.datasets.class_folders import images_below
from mmkd.options import check_number
from mmkd.registry import DATA_SAMPLERS, DATASETS, TRANSFORMS
from mmkd.structures import LABELLED


@TRANSFORMS.register_module()
class DropLabels(BaseTransform):
    """Take the ground truth out of a packed sample, and say so: ``labelled=False``."""

    def transform(self, results: dict) -> dict:
        """The sample with empty ``gt_instances`` and without label maps and classes."""
        sample = results['data_samples']
        sample.set_metainfo({LABELLED: False})
        for name in ('gt_instances', 'ignored_instances'):
            if name in sample:
                setattr(sample, name, getattr(sample, name)[:0])
        for name in ('gt_sem_seg', 'gt_edge_map', 'gt_depth_map', 'gt_label', 'gt_score'):
            if name in sample:
                delattr(sample, name)
        return results


@DATASETS.register_module()
def Unlabelled(dataset: Any) -> BaseDataset:
    """A dataset whose labels nobody sees.

    A batch may have labelled images too (``mmkd.MixedSampler``): the student's own losses and
    objectives that need labels then count on those alone, the others on all.

    Args:
        dataset (dict | BaseDataset): with its pipeline, without wrappers around it; of images alone
            ``mmkd.ImageFolder``.

    Raises:
        TypeError: a wrapper.
    """
    built = DATASETS.build(dataset) if isinstance(dataset, Mapping) else dataset
    if not isinstance(built, BaseDataset):
        raise TypeError(
            f'Unlabelled takes a dataset without wrappers, found a {type(built).__name__}. Wrap '
            'Unlabelled instead.'
        )
    built.pipeline.transforms.append(DropLabels())
    built.no_labels = True
    return built


@DATASETS.register_module()
class ImageFolder(BaseDataset):
    """All images of a folder, at any depth, without annotations.

    Files and folders whose names begin with a dot are left out: previews and copies of attributes.

    Args:
        data_root (str): the folder; ``data_prefix=dict(img_path=…)`` names one inside it.
        metainfo (dict): none by default, so that a ConcatDataset needs
            ``ignore_keys=['classes', 'palette']``.
        pipeline, data_prefix, indices, …: see :class:`mmengine.dataset.BaseDataset`; the pipeline
            may load annotations, which there are none of.

    Raises:
        FileNotFoundError: no such folder, or no image in it.
    """

    def load_data_list(self) -> list[dict]:
        """Path and number of each image, in the order of their names."""
        folder = Path(self.data_prefix.get('img_path') or self.data_root or '.')
        files = sorted(images_below(folder))
        if not files:
            raise FileNotFoundError(f'ImageFolder: there are no images in {folder}.')
        return [dict(img_path=str(path), img_id=i, instances=[]) for i, path in enumerate(files)]


def shares(labelled: int, unlabelled: int, batch_size: int) -> tuple[int, int]:
    """How many images of both kinds a batch has, at least one of each."""
    own = round(batch_size * labelled / (labelled + unlabelled))
    own = min(max(own, 1), batch_size - 1)
    return own, batch_size - own


@DATA_SAMPLERS.register_module()
class MixedSampler(Sampler[int]):
    """Batches of so many labelled and so many unlabelled images, on every rank.

    An epoch takes every labelled image once; the unlabelled ones go on from epoch to epoch, each
    once before any comes again.

    Args:
        dataset (Sized): a ConcatDataset of two: labelled images first, then those without labels.
        batch_size (int): that of the dataloader.
        labelled, unlabelled (int): their proportion.
        seed (int | None): the same on all ranks.

    Raises:
        ValueError: options out of range; a batch of one.
        TypeError: another dataset.
    """

    def __init__(
        self,
        dataset: Sized,
        batch_size: int,
        labelled: int = 1,
        unlabelled: int = 1,
        seed: int | None = None,
    ) -> None:
        owner = 'MixedSampler'
        size = check_number(owner, 'batch_size', batch_size, 2, whole=True)
        parts = [
            check_number(owner, name, value, 1, whole=True)
            for name, value in (('labelled', labelled), ('unlabelled', unlabelled))
        ]
        if not isinstance(dataset, ConcatDataset) or len(dataset.datasets) != 2:
            raise TypeError(
                f'{owner} takes a ConcatDataset of two, labelled images and unlabelled ones, found '
                f'a {type(dataset).__name__}.'
            )
        self.rank, self.world_size = get_dist_info()
        self.batch_size = size
        self.counts = shares(*parts, size)
        self.sizes = [len(part) for part in dataset.datasets]
        seed = check_number(owner, 'seed', seed, 0, whole=True, optional=True)
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0

    @property
    def batches(self) -> int:
        """Of one rank and epoch."""
        return -(-self.sizes[0] // (self.counts[0] * self.world_size))

    def _drawn(self, part: int) -> list[int]:
        """Images of one kind of this rank for one epoch, in the order of its batches."""
        need = self.batches * self.counts[part] * self.world_size
        start = self.epoch * need if part else 0
        offset = self.sizes[0] if part else 0
        found: list[int] = []
        turn, place = divmod(start, self.sizes[part])
        while len(found) < need:
            # Labelled images begin anew in each epoch, in another order.
            number = turn if part else self.epoch * 1009 + turn
            order = torch.Generator().manual_seed(self.seed * 2 + part + 7919 * number)
            found += torch.randperm(self.sizes[part], generator=order).tolist()[place:]
            turn, place = turn + 1, 0
        return [i + offset for i in found[:need][self.rank :: self.world_size]]

    def __iter__(self) -> Iterator[int]:
        own, free = self._drawn(0), self._drawn(1)
        n, m = self.counts
        for k in range(self.batches):
            yield from own[k * n : (k + 1) * n]
            yield from free[k * m : (k + 1) * m]

    def __len__(self) -> int:
        return self.batches * self.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Draw other batches in every epoch."""
        self.epoch = epoch
