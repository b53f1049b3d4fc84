"""One page for an image and an objective: ground truth, then every view of every level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from mmkd.pixels import Pixels
from mmkd.view import Boxes, View
from mmkd.visualization import canvas

PANEL = 272  # pixels, width of one picture
COLUMNS = 4


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


def restore(inputs: Tensor, samples: list, pixels: Pixels, meta: dict | None = None) -> list[Shown]:
    """Turn a normalised, padded batch (N, C, H, W) back into images; of one channel, or of more
    than three, the first is shown in grey.

    Args:
        inputs, samples: what a data preprocessor returned.
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
    result = []
    for index, (value, sample) in enumerate(zip(values, samples, strict=True)):
        h, w = sample.metainfo.get('img_shape', padded)[:2]
        image = np.ascontiguousarray(value[:h, :w])
        names, palette = meta.get('classes', ()), meta.get('palette')
        result.append(Shown(image, sample, index, padded, names, palette))
    return result


def pixel_values(view: View, shown: Shown) -> np.ndarray:
    """A view's map of one image at one value a pixel, cut to the area that is no padding.

    A map covers the *padded* input, never the valid area only: pixel x takes the value of the
    cell j whose centre (j + centre) * stride is nearest; heats are interpolated in between.
    """
    cells = view.maps[shown.index].detach()
    stride = view.stride or stride_of(view.maps, shown.padded)
    size = cells.shape[0] * stride, cells.shape[1] * stride
    h, w = shown.image.shape[:2]
    if min(size[0] - h, size[1] - w) < 0:
        raise ValueError(
            f'view {view.title!r}: {tuple(cells.shape)} cells of stride {stride} do not cover an '
            f'image of {h}x{w} pixels in a batch padded to {shown.padded}.'
        )
    values = cells.float().cpu().numpy()
    y, x = ((np.arange(n, dtype=np.float32) + 0.5) / stride - view.centre for n in (h, w))
    if view.kind == 'heat':
        x, y = np.meshgrid(x, y)
        return cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    rows, columns = (
        np.clip(np.floor(v + 0.5).astype(int), 0, n - 1)
        for v, n in zip((y, x), cells.shape, strict=True)
    )
    return values[rows[:, None], columns]


def stride_of(maps: Tensor, padded: tuple[int, int]) -> int:
    """Input pixels a cell of maps (N, h, w): sizes are rounded up, so the larger side decides."""
    return max(-(-n // m) for n, m in zip(padded, maps.shape[1:], strict=True))


def valid_cells(view: View, shown: Shown) -> Tensor:
    """A view's map of one image without the cells that lie in padding, (h, w)."""
    stride = view.stride or stride_of(view.maps, shown.padded)
    h, w = (-(-n // stride) for n in shown.image.shape[:2])
    return view.maps[shown.index, :h, :w].detach()


def page(
    shown: Shown,
    views: Sequence[View | Boxes],
    heading: str,
    lines: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> np.ndarray:
    """The whole page, (H, W, 3) uint8, BGR.

    Args:
        shown (Shown): the image.
        views (Sequence): of the whole batch; pictures are made for this image.
        heading (str): in bold at the top.
        lines, warnings (Sequence[str]): text beside the ground truth; warnings are red.
    """
    width = COLUMNS * PANEL + (COLUMNS - 1) * 12
    title = canvas.blank(width, 26)
    canvas.write(title, canvas.shorten(heading, width, 18, bold=True), (0, 0), 18, bold=True)
    text = [(line, canvas.RED) for line in warnings] + [(line, canvas.INK) for line in lines]
    first = canvas.captioned(ground_truth(shown), 'ground truth', shown.name)
    beside = [canvas.blank(1, 38), canvas.paragraph(text, width - PANEL - 12)]
    if 'gt_sem_seg' in shown.sample and shown.classes:
        beside += [canvas.blank(1, 10), legend(shown, width - PANEL - 12)]
    top = canvas.beside([first, canvas.below(beside, 0)])
    rows = [title, top]
    for _, group in groupby(views, key=_row_key):
        rows += row(shown, list(group), width)
    return canvas.framed(canvas.below(rows, 14))


def legend(shown: Shown, width: int) -> np.ndarray:
    """Class names on their colours, as many to a line as fit."""
    rows, x = [canvas.blank(width, 20)], 0
    for label, name in enumerate(shown.classes):
        needed = canvas.text_width(name, 12) + 26
        if x + needed > width:
            rows, x = [*rows, canvas.blank(width, 20)], 0
        rows[-1][3:16, x : x + 13] = canvas.colour_of(label, shown.palette)
        canvas.write(rows[-1], name, (x + 17, 2), 12)
        x += needed
    return canvas.below(rows, 0)


def _row_key(view: View | Boxes) -> tuple:
    return ('boxes',) if isinstance(view, Boxes) else (view.stride, *view.maps.shape[1:])


def row(shown: Shown, views: list[View | Boxes], width: int) -> list[np.ndarray]:
    """A rule with the size of the level, then its panels, at most COLUMNS side by side."""
    rule = canvas.blank(width, 22)
    label = _level_text(views[0], shown)
    canvas.write(rule, label, (0, 2), 13, canvas.GREY)
    cv2.line(rule, (canvas.text_width(label) + 10, 11), (width, 11), (215, 210, 205), 1)
    panels: list[np.ndarray] = []
    for _, group in groupby(views, key=lambda view: (type(view), view.title)):
        panels += panels_of(list(group), shown)
    chunks = [panels[i : i + COLUMNS] for i in range(0, len(panels), COLUMNS)]
    return [rule, *(canvas.beside(chunk) for chunk in chunks)]


def _level_text(view: View | Boxes, shown: Shown) -> str:
    if isinstance(view, Boxes):
        return 'regions'
    h, w = valid_cells(view, shown).shape
    whole = f' (padded: {view.maps.shape[1]} × {view.maps.shape[2]})'
    note = whole if (h, w) != tuple(view.maps.shape[1:]) else ''
    stride = view.stride or stride_of(view.maps, shown.padded)
    return f'stride {stride}  ·  {h} × {w} = {h * w} cells{note}'


def panels_of(views: list[Any], shown: Shown) -> list[np.ndarray]:
    """Panels of one title; heats share their scale, so that sides can be compared."""
    if isinstance(views[0], Boxes):
        return [_box_panel(view, shown) for view in views]
    cells = [valid_cells(view, shown).float() for view in views]
    low = min(float(c.min()) for c in cells)
    top = max(max(float(c.max()), view.scale) for c, view in zip(cells, views, strict=True))
    return [_map_panel(view, shown, (low, top)) for view in views]


def _map_panel(view: View, shown: Shown, scale: tuple[float, float]) -> np.ndarray:
    image, values = canvas.enlarge(shown.image, PANEL), pixel_values(view, shown)
    smooth = cv2.INTER_LINEAR if view.kind == 'heat' else cv2.INTER_NEAREST
    values = cv2.resize(values, image.shape[1::-1], interpolation=smooth)
    cells = valid_cells(view, shown)
    caption = f'{view.side}: {view.title}' if view.side else view.title
    if view.kind == 'mask':
        count = int(cells.bool().sum())
        detail = f'{count} cell{"s" * (count != 1)}'
        return canvas.captioned(canvas.overlay_mask(image, values > 0.5), caption, detail)
    if view.kind == 'classes':
        count = len(shown.classes) or int(view.maps.max()) + 1
        drawn = canvas.overlay_classes(image, values.astype(int), shown.palette, count)
        return canvas.captioned(drawn, caption, f'{len(cells.unique())} classes')
    detail = f'peak {_number(float(cells.max()))} {view.unit}'.rstrip()
    low, top = scale
    drawn = canvas.overlay_heat(image, (values - low) / max(top - low, 1e-12))
    return canvas.captioned(drawn, caption, detail, scale=(_number(low), _number(top)))


def _number(value: float) -> str:
    if abs(value) < 1e-3:
        return '0'
    return f'{value:.0f}' if value >= 10 else f'{value:.2g}'


def _box_panel(view: Boxes, shown: Shown) -> np.ndarray:
    own = view.boxes[:, 0].long() == shown.index
    caption = f'{view.side}: {view.title}' if view.side else view.title
    boxes, nothing = view.boxes[own, 1:].cpu(), [None] * int(own.sum())
    labels, scores = (nothing if x is None else x[own].tolist() for x in (view.labels, view.scores))
    names = [_box_name(shown, *pair) for pair in zip(labels, scores, strict=True)]
    drawn = boxes_on(shown, boxes.numpy(), [label or 0 for label in labels], names)
    return canvas.captioned(drawn, caption, f'{len(boxes)} boxes')


def _box_name(shown: Shown, label: int | None, score: float | None) -> str:
    words = [] if label is None else [_class_name(shown, label)]
    return ' '.join(words if score is None else [*words, f'{score:.2f}'])


def _class_name(shown: Shown, label: int) -> str:
    if not shown.classes:
        return f'class {label}'
    return shown.classes[label] if 0 <= label < len(shown.classes) else 'bg'


def boxes_on(
    shown: Shown, boxes: np.ndarray, labels: Sequence[int], names: Sequence[str], width: int = PANEL
) -> np.ndarray:
    """The image with boxes (G, 4) in its own pixels."""
    image = canvas.enlarge(shown.image, width)
    scale = np.array([image.shape[1] / shown.image.shape[1], image.shape[0] / shown.image.shape[0]])
    known = len(shown.classes)
    colours = [
        canvas.GREY if known and label >= known else canvas.colour_of(label, shown.palette)
        for label in labels
    ]
    return canvas.draw_boxes(image, boxes.reshape(-1, 4) * np.tile(scale, 2), names, colours)


def ground_truth(shown: Shown, width: int = PANEL) -> np.ndarray:
    """The image with its annotated boxes or labels, or as it is where it has none."""
    sample = shown.sample
    if 'gt_sem_seg' in sample:
        labels = sample.gt_sem_seg.data.squeeze(0).cpu().numpy()
        h, w = shown.image.shape[:2]
        image = canvas.enlarge(shown.image, width)
        labels = cv2.resize(
            labels[:h, :w].astype(np.int32).astype(np.float32),
            image.shape[1::-1],
            interpolation=cv2.INTER_NEAREST,
        )
        count = len(shown.classes) or int(labels[labels < 255].max(initial=0)) + 1
        return canvas.overlay_classes(image, labels.astype(int), shown.palette, count)
    boxes, labels = np.zeros((0, 4)), []
    if 'gt_instances' in sample:
        boxes = sample.gt_instances.bboxes
        boxes = getattr(boxes, 'tensor', boxes).detach().cpu().numpy()
        labels = torch.as_tensor(sample.gt_instances.labels).tolist()
    names = [_class_name(shown, label) for label in labels]
    return boxes_on(shown, boxes, labels, names, width)
