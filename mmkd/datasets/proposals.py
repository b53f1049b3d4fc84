"""Proposals and image labels for weakly supervised detectors: transforms for mmdet's pipelines."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.logging import print_log

from mmkd.names import no_file
from mmkd.options import check_list, check_number
from mmkd.registry import TRANSFORMS

#: all that a file of arrays needs; numpy 1 and 2 call their modules differently
_ARRAYS = {'_reconstruct', '_frombuffer', 'scalar', 'ndarray', 'dtype', 'encode'}
_MODULES = {'numpy', '_codecs'} | {
    f'numpy.{core}.{name}' for core in ('core', '_core') for name in ('multiarray', 'numeric')
}


class ArrayUnpickler(pickle.Unpickler):
    """Reads numpy arrays in lists and mappings, and refuses to run anything else."""

    def find_class(self, module: str, name: str) -> Any:
        if module in _MODULES and name in _ARRAYS:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f'it asks for {module}.{name}')


def key_of(path: str) -> str:
    """Name of an image in a file of proposals, as mmdet's: ``'folder/image.jpg'``."""
    return '/'.join(Path(path).parts[-2:])


def read_proposals(file: str | Path) -> dict[str, dict[str, np.ndarray]]:
    """``{'folder/image.jpg': dict(bboxes=(n, 4), scores=(n,))}`` of a pickle file.

    Nothing but arrays is read, so that a file from elsewhere cannot run code.

    Raises:
        FileNotFoundError: no such file.
        ValueError: anything but a mapping of this form, or boxes that are not (x1, y1, x2, y2);
            the first wrong entry is named.
    """
    if not Path(file).is_file():
        raise FileNotFoundError(
            f'proposals: {no_file(file, ".pkl")} python -m mmkd.datasets.selective_search IMAGES '
            '--out FILE.pkl writes it.'
        )
    try:
        with Path(file).open('rb') as stream:
            found = ArrayUnpickler(stream).load()
    except Exception as error:
        raise ValueError(f'proposals: {file} is no pickle of arrays: {error}.') from None
    if not isinstance(found, Mapping):
        raise ValueError(f'proposals: {file} holds {type(found).__name__}, not a mapping by image.')
    for name, entry in found.items():
        boxes = np.asarray(entry.get('bboxes')) if isinstance(entry, Mapping) else np.zeros(())
        scores = np.shape(entry.get('scores')) if isinstance(entry, Mapping) else ()
        if boxes.ndim != 2 or boxes.shape[1] != 4 or scores != boxes.shape[:1]:
            raise ValueError(
                f'proposals: {file} must have dict(bboxes=(n, 4), scores=(n,)) for {name}, found '
                f'bboxes {boxes.shape} and scores {scores}.'
            )
        wrong = ~(np.isfinite(boxes).all(1) & (boxes[:, 2:] >= boxes[:, :2]).all(1))
        if wrong.any():
            raise ValueError(
                f'proposals: {file} must have finite boxes (x1, y1, x2, y2) with x1 <= x2 and '
                f'y1 <= y2, found {boxes[wrong][0].tolist()} for {name}. Boxes (x, y, w, h) need '
                'x and y added to w and h.'
            )
    return dict(found)


@TRANSFORMS.register_module()
class LoadProposals(BaseTransform):
    """Proposals of the image, from a file of :mod:`mmkd.datasets.selective_search` or mmdet's kind.

    They are in pixels of the original image, ``proposals`` (n, 4) and ``proposals_scores`` (n,).

    Args:
        file (str): a pickle, see :func:`read_proposals`.
        most (int): the first of each image are kept.

    Raises:
        FileNotFoundError, ValueError: see :func:`read_proposals`; before training, images of the
            dataset that are not in the file, a file without any box for them, or boxes with their
            centre outside an image whose size the dataset knows.
    """

    def __init__(self, file: str, most: int = 2000) -> None:
        self.file = str(file)
        self.most = check_number('LoadProposals', 'most', most, 1, whole=True)
        self.found = read_proposals(file)

    def check_dataset(self, dataset: Any) -> None:
        """Every image must be in the file, with boxes in it; called before training."""
        infos = [dataset.get_data_info(i) for i in range(len(dataset))]
        lost = [info['img_path'] for info in infos if key_of(info['img_path']) not in self.found]
        if lost:
            raise ValueError(self._lost(lost[0], f'{len(lost)} of {len(infos)} images'))
        boxes = [np.asarray(self.found[key_of(info['img_path'])]['bboxes']) for info in infos]
        if infos and not any(map(len, boxes)):
            raise ValueError(
                f'LoadProposals: {self.file} has no box for any of the {len(infos)} images, so '
                'nothing can be learned.'
            )
        for info, own in zip(infos, boxes, strict=True):
            if len(own) and 'width' in info and 'height' in info:
                self._check_inside(info, own)

    def _check_inside(self, info: dict, boxes: np.ndarray) -> None:
        size = info['width'], info['height']
        outside = ((boxes[:, :2] + boxes[:, 2:]) / 2 > size).any(1)
        if outside.any():
            raise ValueError(
                f'LoadProposals: {self.file} has a box {boxes[outside][0].tolist()} for '
                f'{key_of(info["img_path"])}, whose centre is outside of its {size[0]} x {size[1]} '
                'pixels. Proposals are in pixels of the original image.'
            )

    def _lost(self, path: str, how_many: str) -> str:
        known = next(iter(self.found), 'none')
        return (
            f'LoadProposals: {self.file} has no proposals of {how_many}, the first of them '
            f'{key_of(path)}; it has {len(self.found)} images, such as {known}. Run '
            'python -m mmkd.datasets.selective_search for all images of the dataset.'
        )

    def transform(self, results: dict) -> dict:
        entry = self.found.get(key_of(results['img_path']))
        if entry is None:
            raise ValueError(self._lost(results['img_path'], 'an image'))
        boxes = np.asarray(entry['bboxes'], np.float32)[: self.most]
        scores = np.asarray(entry['scores'], np.float32)[: self.most]
        return dict(results, proposals=boxes, proposals_scores=scores)


@TRANSFORMS.register_module()
class GridProposals(BaseTransform):
    """Boxes of a few sizes and shapes at even distances over the image: proposals without a search.

    Args:
        scales (Sequence[float]): square roots of areas, in shares of the shorter side.
        ratios (Sequence[float]): width over height.
        step (float): distance of neighbours in shares of a box's sides.

    Raises:
        ValueError: numbers not above 0, or none.
    """

    def __init__(
        self,
        scales: Sequence[float] = (0.2, 0.35, 0.6),
        ratios: Sequence[float] = (0.6, 1.0, 1.6),
        step: float = 0.5,
    ) -> None:
        owner = 'GridProposals'
        self.scales = _numbers(owner, 'scales', scales)
        self.ratios = _numbers(owner, 'ratios', ratios)
        self.step = check_number(owner, 'step', step, above=0)

    def transform(self, results: dict) -> dict:
        boxes = self.boxes(*results['img_shape'][:2])
        return dict(results, proposals=boxes, proposals_scores=np.ones(len(boxes), np.float32))

    def boxes(self, height: int, width: int) -> np.ndarray:
        """(n, 4) of an image of this size."""
        found = []
        for scale in self.scales:
            for ratio in self.ratios:
                side = scale * min(height, width)
                w, h = min(side * ratio**0.5, width), min(side / ratio**0.5, height)
                x, y = (_places(*pair, self.step) for pair in ((width, w), (height, h)))
                x, y = (axis.ravel() for axis in np.meshgrid(x, y))
                found.append(np.stack((x, y, x + w, y + h), 1))
        return np.concatenate(found).astype(np.float32)


def _places(length: int, side: float, step: float) -> np.ndarray:
    """First coordinates of boxes of one side along an axis, from edge to edge."""
    count = 1 + int(np.ceil((length - side) / (step * side) - 1e-6))
    return np.linspace(0, length - side, count) if count > 1 else np.array([(length - side) / 2])


def _numbers(owner: str, name: str, values: Any) -> list[float]:
    found = [check_number(owner, name, v, above=0) for v in check_list(owner, name, values)]
    if not found:
        raise ValueError(f'{owner}: {name} must have at least one number, found none.')
    return found


@TRANSFORMS.register_module()
class ProposalsToImage(BaseTransform):
    """Move proposals of the original image to the resized and flipped one.

    mmdet's ``Resize`` and ``RandomFlip`` leave proposals where they are. This transform stands
    behind both, right before ``PackDetInputs``, and reads what they wrote: ``scale_factor``,
    ``flip`` and ``flip_direction``. Crops, rotations and mosaics are not supported.

    Raises:
        ValueError: no proposals; a direction of flipping that mmdet does not have.
    """

    def transform(self, results: dict) -> dict:
        if 'proposals' not in results:
            raise ValueError(
                'ProposalsToImage: no proposals. Put mmkd.LoadProposals or mmkd.GridProposals '
                'behind the loading of the image.'
            )
        boxes = np.asarray(results['proposals'], np.float32)
        boxes = boxes * np.tile(np.float32(results.get('scale_factor', (1.0, 1.0))), 2)
        height, width = results['img_shape'][:2]
        if results.get('flip'):
            direction = results['flip_direction']
            if direction not in ('horizontal', 'vertical', 'diagonal'):
                raise ValueError(f'ProposalsToImage: flip_direction {direction!r} is not known.')
            if direction != 'vertical':
                boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
            if direction != 'horizontal':
                boxes[:, [1, 3]] = height - boxes[:, [3, 1]]
        boxes[:, 0::2] = boxes[:, 0::2].clip(0, width)
        boxes[:, 1::2] = boxes[:, 1::2].clip(0, height)
        return dict(results, proposals=boxes)


@TRANSFORMS.register_module()
class ImageLabels(BaseTransform):
    """Keep of the annotations only which classes an image shows.

    Boxes, masks and objects to be ignored are taken away, so that no training can read them;
    ``gt_bboxes_labels`` has each class once.

    Raises:
        ValueError: annotations were not loaded.
    """

    def check_dataset(self, dataset: Any) -> None:
        """Warn of classes that every image shows; called before training."""
        infos = [dataset.get_data_info(i) for i in range(len(dataset))]
        shown = [{one['bbox_label'] for one in info.get('instances', ())} for info in infos]
        names = dataset.metainfo.get('classes') or ()
        always = set.intersection(*shown) if shown else set()
        for label in sorted(always):
            print_log(
                f'ImageLabels: every one of the {len(infos)} images shows class '
                f'{names[label] if label < len(names) else label}, so image labels do not say '
                'where it is. Add images without it, or tiles of these.',
                logger='current',
                level=30,
            )

    def transform(self, results: dict) -> dict:
        if 'gt_bboxes_labels' not in results:
            raise ValueError(
                'ImageLabels: no labels. Put LoadAnnotations with with_bbox=True in front of it.'
            )
        labels = np.asarray(results['gt_bboxes_labels'], np.int64)
        ignored = np.asarray(results.get('gt_ignore_flags', np.zeros(len(labels))), bool)
        kept = {k: v for k, v in results.items() if k not in ('gt_bboxes', 'gt_masks')}
        kept.pop('gt_ignore_flags', None)
        return dict(kept, gt_bboxes_labels=np.unique(labels[~ignored]))
