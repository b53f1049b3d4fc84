"""How well proposals follow the superpixels of an image: bottom-up evidence of objects."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from mmkd.options import check_number
from mmkd.registry import TRANSFORMS

#: superpixels whose integral images are held at a time
CHUNK = 32


def straddling(labels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """``1 - sum_s min(|s \\ r|, |s ∩ r|) / |r|`` of each box r (Alexe et al., TPAMI 2012), (n,).

    It is 1 if no superpixel lies partly inside, and not below 0.

    Args:
        labels (np.ndarray): superpixel of each pixel, (H, W), integers.
        boxes (np.ndarray): (n, 4); a box is all pixels that it touches.
    """
    _, flat = np.unique(labels, return_inverse=True)
    labels, (height, width) = flat.reshape(labels.shape), labels.shape
    low = np.floor(boxes[:, :2]).astype(int).clip(0, [width - 1, height - 1])
    high = np.maximum(np.ceil(boxes[:, 2:]).astype(int).clip(0, [width, height]), low + 1)
    (x1, y1), (x2, y2) = low.T, high.T
    partly = np.zeros(len(boxes))
    for start in range(0, int(labels.max()) + 1, CHUNK):
        each = labels == np.arange(start, min(start + CHUNK, labels.max() + 1))[:, None, None]
        table = np.pad(each, ((0, 0), (1, 0), (1, 0))).cumsum(1, np.int32).cumsum(2, np.int32)
        inside = table[:, y2, x2] - table[:, y1, x2] - table[:, y2, x1] + table[:, y1, x1]
        partly += np.minimum(inside, table[:, -1:, -1] - inside).sum(0)
    area = (high - low).prod(1)
    return (1 - partly / area).clip(0, 1).astype(np.float32)


@TRANSFORMS.register_module()
class Superpixels(BaseTransform):
    """Scores of proposals from the superpixels of the image, for ``mmkd.WSOD2``.

    ``proposals_scores`` becomes :func:`straddling` of each proposal. It stands behind the proposals
    and in front of ``Resize`` and ``RandomFlip``, so that both are in the frame of the original
    image; in the released code of WSOD2 superpixels are not flipped with the image.

    Args:
        folder (str | None): of maps ``<name of the image>.png`` in the image's size, 8 or 16 bit, a
            number for each superpixel; ``None`` makes them (Felzenszwalb and Huttenlocher, IJCV
            2004) with scikit-image.
        scale (float): without a folder, larger for larger superpixels.
        sigma (float): without a folder, of the smoothing before.
        min_size (int): without a folder, in pixels.

    Raises:
        ImportError: no folder and no scikit-image.
        FileNotFoundError: an image without a map.
        ValueError: a map of another size than the image, or no map; a resized or flipped image; no
            proposals; numbers out of range.
    """

    #: proposals have scores that mean something
    gives_objectness = True

    def __init__(
        self,
        folder: str | None = None,
        scale: float = 100.0,
        sigma: float = 0.8,
        min_size: int = 20,
    ) -> None:
        self.folder = None if folder is None else Path(folder)
        self.options = dict(
            scale=check_number('Superpixels', 'scale', scale, above=0),
            sigma=check_number('Superpixels', 'sigma', sigma, 0),
            min_size=check_number('Superpixels', 'min_size', min_size, 1, whole=True),
        )
        if folder is None and not find_spec('skimage'):
            raise ImportError(
                'Superpixels: scikit-image is not installed, which makes superpixels. Run '
                'pip install scikit-image, or name a folder of maps.'
            )

    def transform(self, results: dict) -> dict:
        if 'proposals' not in results:
            raise ValueError(
                'Superpixels: no proposals. Put mmkd.LoadProposals or mmkd.GridProposals in front.'
            )
        if results.get('flip') or tuple(results['img_shape'][:2]) != tuple(
            results['ori_shape'][:2]
        ):
            raise ValueError(
                'Superpixels: the image was resized or flipped already, and the proposals were '
                'not. Put Superpixels in front of Resize and RandomFlip.'
            )
        labels = self.labels(results)
        return dict(results, proposals_scores=straddling(labels, results['proposals']))

    def labels(self, results: dict) -> np.ndarray:
        """Superpixel of each pixel, (H, W)."""
        if self.folder is None:
            from skimage.segmentation import felzenszwalb

            return felzenszwalb(results['img'], **self.options)
        path = self.folder / f'{Path(results["img_path"]).stem}.png'
        if not path.is_file():
            raise FileNotFoundError(
                f'Superpixels: there is no {path}. Write a map for every image, or leave folder '
                'out.'
            )
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        size = tuple(results['ori_shape'][:2])
        if labels is None or labels.shape != size:
            found = 'no image' if labels is None else f'{labels.shape}'
            raise ValueError(
                f'Superpixels: {path} must be one number for each pixel of the image, {size}, '
                f'found {found}.'
            )
        return labels
