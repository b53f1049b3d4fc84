"""One page for an image and an objective: ground truth, then every view of every level."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import cv2
import numpy as np
from torch import Tensor

from mmkd.view import Boxes, View
from mmkd.visualization import canvas
from mmkd.visualization.shown import PANEL, Shown, boxes_on
from mmkd.visualization.truth import ground_truth, name_of

COLUMNS = 4
LINES = 3  # that the caption of a panel may have


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
    first = canvas.captioned(ground_truth(shown), 'ground truth', name_of(shown))
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
    return [rule, *(canvas.beside(chunk, low=True) for chunk in chunks)]


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
        return canvas.captioned(
            canvas.overlay_mask(image, values > 0.5), caption, detail, lines=LINES
        )
    if view.kind == 'classes':
        count = len(shown.classes) or int(view.maps.max()) + 1
        drawn = canvas.overlay_classes(image, values.astype(int), shown.palette, count)
        return canvas.captioned(drawn, caption, f'{len(cells.unique())} classes', lines=LINES)
    detail = f'peak {_number(float(cells.max()))} {view.unit}'.rstrip()
    low, top = scale
    drawn = canvas.overlay_heat(image, (values - low) / max(top - low, 1e-12))
    return canvas.captioned(drawn, caption, detail, scale=(_number(low), _number(top)), lines=LINES)


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
    return canvas.captioned(drawn, caption, f'{len(boxes)} boxes', lines=LINES)


def _box_name(shown: Shown, label: int | None, score: float | None) -> str:
    words = [] if label is None else [shown.class_name(label)]
    return ' '.join(words if score is None else [*words, f'{score:.2f}'])
