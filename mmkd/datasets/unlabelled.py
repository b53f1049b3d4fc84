"""Images without labels: a folder, a dataset whose labels are dropped, and mixed batches."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sized
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset, ConcatDataset
from mmengine.dist import get_dist_info
from torch.utils.data import Sampler

from mmkd.datasets.class_folders import images_below
from mmkd.datasets.samplers import common_seed
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


class IgnoredMap(BaseTransform):
    """A label map (H, W) that says of each pixel to ignore it, 255: of an image without labels.

    Transforms that move label maps or look at their classes (``RandomCrop``) work as they do with
    labels.
    """

    def transform(self, results: dict) -> dict:
        """The results with ``gt_seg_map``."""
        results['gt_seg_map'] = np.full(results['img'].shape[:2], 255, np.uint8)
        results.setdefault('seg_fields', []).append('gt_seg_map')
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
        manifest (str | None): instead: a file of ``mmkd make TransferSet``, beside whose ``files``
            it lies.
        metainfo (dict): none by default, so that a ConcatDataset needs
            ``ignore_keys=['classes', 'palette']``.
        pipeline, data_prefix, indices, …: see :class:`mmengine.dataset.BaseDataset`. The pipeline
            may load annotations: there are no boxes, and every pixel of a label map is ignored.

    Raises:
        FileNotFoundError: no such folder or file, or no image in it.
        ValueError: a link to a folder that it lies in.
    """

    def __init__(self, *args: Any, manifest: str | None = None, **kwargs: Any) -> None:
        self.manifest = manifest
        super().__init__(*args, **kwargs)
        for place, transform in reversed([*enumerate(self.pipeline.transforms)]):
            if getattr(transform, 'with_seg', False):
                transform.with_seg = False
                self.pipeline.transforms.insert(place + 1, IgnoredMap())

    def load_data_list(self) -> list[dict]:
        """Path and number of each image, in the order of their names, or of the manifest."""
        if self.manifest is None:
            folder = Path(self.data_prefix.get('img_path') or self.data_root or '.')
            files = sorted(images_below(folder))
        else:
            folder = Path(self.manifest).expanduser()
            held = json.loads(folder.read_text()) if folder.is_file() else dict(files=[])
            files = [folder.parent / one['file'] for one in held['files']]
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
        self.sizes = _two_parts(owner, dataset)
        self.rank, self.world_size = get_dist_info()
        self.batch_size = size
        self.counts = shares(*parts, size)
        self.seed = common_seed(owner, seed)
        self.epoch = 0

    @property
    def batches(self) -> int:
        """Of one rank and epoch."""
        return -(-self.sizes[0] // (self.counts[0] * self.world_size))

    def __iter__(self) -> Iterator[int]:
        n, m = self.counts
        needs = [count * self.batches * self.world_size for count in self.counts]
        # Labelled images begin anew in each epoch, in another order.
        own = _drawn(self.sizes[0], 0, needs[0], self.seed * 2 + 7919 * 1009 * self.epoch)
        free = _drawn(self.sizes[1], self.epoch * needs[1], needs[1], self.seed * 2 + 1)
        own, free = (found[self.rank :: self.world_size] for found in (own, free))
        for k in range(self.batches):
            yield from own[k * n : (k + 1) * n]
            yield from (self.sizes[0] + i for i in free[k * m : (k + 1) * m])

    def __len__(self) -> int:
        return self.batches * self.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Draw other batches in every epoch."""
        self.epoch = epoch


@DATA_SAMPLERS.register_module()
class AlternatingSampler(Sampler[int]):
    """Every second batch has labelled images alone, the others images of both kinds.

    Tang et al. (2019) train so on labelled images and on others with boxes of a teacher: a batch of
    the first, a batch of the union of both. All batches of an epoch together have as many images as
    the union. Each kind of batch takes every image once before any comes again.

    Args:
        dataset (Sized): a ConcatDataset of two: labelled images first, then those with pseudo
            labels.
        batch_size (int): that of the dataloader.
        seed (int | None): the same on all ranks.

    Raises:
        ValueError: options out of range.
        TypeError: another dataset.
    """

    def __init__(self, dataset: Sized, batch_size: int, seed: int | None = None) -> None:
        owner = 'AlternatingSampler'
        self.batch_size = check_number(owner, 'batch_size', batch_size, 1, whole=True)
        sizes = _two_parts(owner, dataset)
        self.sizes = [sizes[0], sum(sizes)]
        self.rank, self.world_size = get_dist_info()
        self.seed = common_seed(owner, seed)
        self.epoch = 0

    def __iter__(self) -> Iterator[int]:
        size, batches = self.batch_size, len(self) // self.batch_size
        parts = []
        for part, count in enumerate((-(-batches // 2), batches // 2)):
            need = count * size * self.world_size
            found = _drawn(self.sizes[part], self.epoch * need, need, self.seed * 2 + part)
            parts.append(found[self.rank :: self.world_size])
        for k in range(batches):
            yield from parts[k % 2][k // 2 * size : (k // 2 + 1) * size]

    def __len__(self) -> int:
        return -(-self.sizes[1] // (self.batch_size * self.world_size)) * self.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Draw other batches in every epoch."""
        self.epoch = epoch


def _two_parts(owner: str, dataset: Any) -> list[int]:
    """How many images both parts of a ConcatDataset have."""
    if not isinstance(dataset, ConcatDataset) or len(dataset.datasets) != 2:
        raise TypeError(
            f'{owner} takes a ConcatDataset of two, labelled images and the others, found a '
            f'{type(dataset).__name__}.'
        )
    return [len(part) for part in dataset.datasets]


def _drawn(size: int, start: int, need: int, seed: int) -> list[int]:
    """``need`` numbers below ``size`` from place ``start`` of an endless list.

    In it each number comes once before any comes again, every time in another order.
    """
    turn, place = divmod(start, size)
    found: list[int] = []
    while len(found) < need:
        order = torch.Generator().manual_seed(seed + 7919 * turn)
        found += torch.randperm(size, generator=order).tolist()[place:]
        turn, place = turn + 1, 0
    return found[:need]
