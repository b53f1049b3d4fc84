"""One image of a batch as the network's input, for drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from mmkd.pixels import Pixels
from mmkd.visualization import canvas

PANEL = 272  # pixels, width of one picture


@dataclass
class Shown:
    """One image of a batch, as a model's input holds it.

    Attributes:
        image (np.ndarray): (H, W, 3) uint8, BGR: the area that is no padding.
        sample (Any): its data sample.
        index (int): its place in the batch.
        padded (tuple[int, int]): (H, W) of the batch.
        classes (Sequence[str]): class names.
        palette (Sequence | None): their colours, RGB.
    """

    image: np.ndarray
    sample: Any
    index: int
    padded: tuple[int, int]
    classes: Sequence[str] = ()
    palette: Sequence | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        path = self.sample.metainfo.get('img_path') or f'image {self.index}'
        return str(path).replace('\\', '/').rpartition('/')[2]

    @property
    def scale(self) -> np.ndarray:
        """(2,) pixels of this image to one of the file, x and y: predictions are in the file's."""
        meta, (height, width) = self.sample.metainfo, self.image.shape[:2]
        if meta.get('scale_factor') is not None:
            return np.resize(np.asarray(meta['scale_factor'], float), 2)
        old = meta.get('ori_shape') or (height, width)
        return np.array([width / old[1], height / old[0]])

    def place(self, values: np.ndarray) -> np.ndarray:
        """A map (H, W) in pixels of the file, cut or filled with -1 to those of this image."""
        height, width = self.image.shape[:2]
        size = [round(n * s) for n, s in zip(values.shape[::-1], self.scale, strict=True)]
        if abs(size[0] - width) <= 1 and abs(size[1] - height) <= 1:  # no padding, only rounding
            size = [width, height]
        return self.cut(canvas.resize_labels(values, size))

    def cut(self, values: np.ndarray) -> np.ndarray:
        """A map (H, W) in pixels of the network's input, cut or filled with -1 to this image."""
        height, width = self.image.shape[:2]
        kept = np.asarray(values)[:height, :width]
        result = np.full((height, width), -1, np.int32)
        result[: kept.shape[0], : kept.shape[1]] = kept
        return result

    def class_name(self, label: int) -> str:
        """Name of a class; an index beyond the classes is background."""
        if not self.classes:
            return f'class {label}'
        return self.classes[label] if 0 <= label < len(self.classes) else 'bg'

    def colour(self, label: int) -> tuple[int, int, int]:
        """Of a class, BGR; grey beyond the classes."""
        known = len(self.classes)
        return canvas.GREY if known and label >= known else canvas.colour_of(label, self.palette)


def restore(inputs: Tensor, samples: list, pixels: Pixels, meta: dict | None = None) -> list[Shown]:
    """Turn a normalised, padded batch (N, C, H, W) back into images; of one channel, or of more
    than three, the first is shown in grey.

    Args:
        inputs, samples: output of a data preprocessor.
        pixels (Pixels): its normalisation.
        meta (dict | None): the dataset's meta information, for class names and colours.
    """
    meta = meta or {}
    mean, std = (v.to(inputs).view(1, -1, 1, 1) for v in (pixels.mean, pixels.std))
    values = (inputs * std + mean).clamp(0, 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    if values.shape[-1] != 3:
        values = values[..., [0, 0, 0]]
    elif pixels.swapped:
        values = values[..., ::-1]
    padded = (int(inputs.shape[2]), int(inputs.shape[3]))
    names, palette = meta.get('classes', ()), meta.get('palette')
    if palette is not None and len(palette) != len(names):
        palette = None  # COCO's own, say, which stays where a config names other classes
    result = []
    for index, (value, sample) in enumerate(zip(values, samples, strict=True)):
        h, w = sample.metainfo.get('img_shape', padded)[:2]
        image = np.ascontiguousarray(value[:h, :w])
        result.append(Shown(image, sample, index, padded, names, palette))
    return result


def boxes_on(
    shown: Shown,
    boxes: np.ndarray,
    labels: Sequence[int],
    names: Sequence[str],
    width: int = PANEL,
    image: np.ndarray | None = None,
) -> np.ndarray:
    """The image, or one drawn on before, with boxes (G, 4) in its own pixels."""
    image = canvas.enlarge(shown.image if image is None else image, width)
    scale = np.array(image.shape[1::-1]) / shown.image.shape[1::-1]
    colours = [shown.colour(label) for label in labels]
    return canvas.draw_boxes(image, boxes.reshape(-1, 4) * np.tile(scale, 2), names, colours)
