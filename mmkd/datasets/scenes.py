"""Draws small textured scenes with overlapping objects, for the demo and the tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

CLASSES = ('disc', 'square', 'triangle', 'star', 'ring')
PALETTE = ((230, 84, 60), (66, 135, 245), (60, 180, 75), (250, 190, 40), (155, 80, 220))

MIN_VISIBLE = 0.45  # an object is never hidden further than this, so that every box can be learned
MIN_INSIDE = 0.65  # share of an object that lies inside the image
HOLE = 0.55  # inner radius of a ring


@dataclass(frozen=True)
class Scene:
    """One image with the *visible* parts of its N objects, in drawing order.

    Attributes:
        image: (H, W, 3) uint8, BGR.
        boxes: (N, 4) float32, pixels as x1, y1, x2, y2; x2 and y2 are exclusive.
        labels: (N,) int64, indices into ``CLASSES``.
        masks: (N, H, W) bool; no pixel belongs to two objects.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    masks: np.ndarray


def generate_scene(
    rng: np.random.Generator,
    size: tuple[int, int] = (256, 192),
    labels: Sequence[int] | None = None,
    scale: tuple[float, float] = (0.13, 0.5),
    centred: bool = False,
) -> Scene:
    """Draw one scene.

    Args:
        rng: The only source of randomness: equal generators give equal scenes.
        size: Width and height in pixels, at least 16 each.
        labels: Classes of the objects to place; by default three to eight random ones. An object
            for which there is no room is left out, except a single one.
        scale: Smallest and largest diameter as a share of the shorter image side.
        centred: Put every object about the middle of the image, for classification.

    Raises:
        ValueError: If ``size`` is below 16 pixels or a label is not an index into ``CLASSES``.
    """
    width, height = size
    labels = _check(rng, size, labels)
    canvas = _background(rng, height, width)
    masks: list[np.ndarray] = []
    areas: list[int] = []
    kept: list[int] = []
    for label in labels:
        alpha = _place(rng, label, (height, width), scale, centred, masks, areas)
        if alpha is None:
            continue
        covered = alpha > 0.5
        masks = [mask & ~covered for mask in masks] + [covered]
        areas.append(int(covered.sum()))
        kept.append(label)
        _draw(rng, canvas, alpha)
    canvas += 3.5 * rng.standard_normal(canvas.shape, np.float32)
    image = np.clip(canvas, 0, 255).astype(np.uint8)
    stacked = np.stack(masks) if masks else np.zeros((0, height, width), bool)
    return Scene(image, boxes_of(stacked), np.array(kept, np.int64), stacked)


def _check(rng, size: tuple[int, int], labels: Sequence[int] | None) -> list[int]:
    """The classes to draw; ``ValueError`` for arguments out of range."""
    if min(size) < 16:
        raise ValueError(f'a scene needs at least 16x16 pixels, got {size[0]}x{size[1]}')
    if labels is None:
        return rng.integers(len(CLASSES), size=rng.integers(3, 9)).tolist()
    if not all(0 <= label < len(CLASSES) for label in labels):
        raise ValueError(f'labels must lie in [0, {len(CLASSES)}), got {list(labels)}')
    return list(labels)


def boxes_of(masks: np.ndarray) -> np.ndarray:
    """Tight boxes around non-empty masks, (N, H, W) bool -> (N, 4) float32, x2 y2 exclusive."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


def _place(rng, label, shape, scale, centred, masks, areas) -> np.ndarray | None:
    """Coverage of a new object, (H, W) float32 in [0, 1], or None if it would hide too much."""
    height, width = shape
    for _ in range(12):
        diameter = min(shape) * float(np.exp(rng.uniform(*np.log(scale))))
        centre = np.array([width, height]) * (
            rng.uniform(0.42, 0.58, 2) if centred else rng.uniform(0.02, 0.98, 2)
        )
        loops = _outline(rng, label, diameter / 2, centre)
        alpha = np.zeros(shape, np.uint8)
        fixed_point = [np.round(loop * 16).astype(np.int32) for loop in loops]
        cv2.fillPoly(alpha, fixed_point, 255, cv2.LINE_AA, shift=4)
        covered = alpha > 127
        inside = covered.sum() / _area(loops)
        hidden = any(
            (mask & ~covered).sum() < MIN_VISIBLE * area
            for mask, area in zip(masks, areas, strict=True)
        )
        if not hidden and (inside > MIN_INSIDE or centred) and covered.sum() > 12:
            return alpha.astype(np.float32) / 255
    return None


def _outline(rng, label: int, radius: float, centre: np.ndarray) -> list[np.ndarray]:
    """Closed loops of (K, 2) pixel coordinates; a second loop is a hole."""
    name = CLASSES[label]
    corners = {'square': 4, 'triangle': 3, 'star': 10}.get(name, 64)
    angle = 2 * np.pi * np.arange(corners) / corners
    unit = np.stack([np.cos(angle), np.sin(angle)], 1)
    if name == 'star':
        unit[1::2] *= 0.45
    loops = [unit, unit * HOLE] if name == 'ring' else [unit]
    turn = rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    stretch = rng.uniform([0.8, 0.8], [1.1, 1.1]) * radius
    return [(loop * stretch) @ rotation.T + centre for loop in loops]


def _area(loops: list[np.ndarray]) -> float:
    """Area between an outer loop and its holes, in pixels."""
    areas = [cv2.contourArea(loop.astype(np.float32)) for loop in loops]
    return max(areas[0] - sum(areas[1:]), 1.0)


def _draw(rng, canvas: np.ndarray, alpha: np.ndarray) -> None:
    """Paint a textured object and its shadow into ``canvas`` (H, W, 3) float32, in place."""
    height, width = alpha.shape
    x1, y1, x2, y2 = boxes_of(alpha[None] > 0)[0].astype(int)
    reach = max(3, (x2 - x1 + y2 - y1) // 8)
    margin = 2 * reach
    top, left = max(y1 - margin, 0), max(x1 - margin, 0)
    window = (slice(top, min(y2 + margin, height)), slice(left, min(x2 + margin, width)))
    cover, view = alpha[window], canvas[window]

    shadow = cv2.GaussianBlur(cover, (0, 0), reach / 3)
    shift = np.float32([[1, 0, reach / 3], [0, 1, reach / 3]])
    shadow = cv2.warpAffine(shadow, shift, shadow.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
    view *= 1 - 0.5 * shadow[..., None]

    # The blurred silhouette darkens the rim, which makes the flat shapes look solid.
    rim = 0.6 + 0.45 * cv2.GaussianBlur(cover, (0, 0), reach / 2.5)
    paint = _texture(rng, *cover.shape) * rim[..., None]
    view += cover[..., None] * (paint - view)


def _texture(rng, height: int, width: int) -> np.ndarray:
    """A two-coloured pattern lit from the upper left, (H, W, 3) float32 in [0, 255]."""
    hue = rng.uniform(0, 180)
    first = _colour(hue, rng.uniform(110, 230), rng.uniform(150, 250))
    second = _colour(hue + rng.choice([0, 20, 70, 100]), rng.uniform(60, 220), rng.uniform(70, 190))
    turn, period = rng.uniform(0, np.pi), rng.uniform(6, 16)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    u = (x * np.cos(turn) + y * np.sin(turn)) * 2 * np.pi / period
    v = (y * np.cos(turn) - x * np.sin(turn)) * 2 * np.pi / period
    marble = _noise(rng, height, width, period)
    wave = (
        np.sin(u + 3 * marble),  # stripes
        4 * np.sin(u / 2) * np.sin(v / 2),  # checks
        3 * (np.cos(u) + np.cos(v) - 1),  # dots
        6 * (marble - 0.5),  # marble
    )[rng.integers(4)]
    share = 1 / (1 + np.exp(-2.5 * wave))[..., None]
    light = 1.15 - 0.4 * (x / max(width, 1) + y / max(height, 1))[..., None] / 2
    return (first + share * (second - first)) * light.astype(np.float32)


def _background(rng, height: int, width: int) -> np.ndarray:
    """Cloudy ground with faint strokes that belong to no class, (H, W, 3) float32."""
    hue = rng.uniform(0, 180)
    dark = _colour(hue, rng.uniform(20, 90), rng.uniform(70, 130))
    bright = _colour(hue + rng.uniform(-30, 30), rng.uniform(20, 80), rng.uniform(150, 235))
    clouds = sum(_noise(rng, height, width, 64 / 2**k) / 2**k for k in range(4)) / 1.875
    ground = dark + clouds[..., None] * (bright - dark)
    strokes = np.zeros((height, width), np.uint8)
    for _ in range(rng.integers(4, 10)):
        middle = rng.integers(0, [width, height]).tolist()
        axes = rng.integers(4, max(6, min(height, width) // 2), 2).tolist()
        start = rng.uniform(0, 360)
        arc = (middle, axes, rng.uniform(0, 180), start, start + rng.uniform(30, 200))
        cv2.ellipse(strokes, *arc, 255, int(rng.integers(1, 4)), cv2.LINE_AA)
    strength = rng.uniform(-45, 45)
    return (ground + strength * (strokes[..., None] / np.float32(255))).astype(np.float32)


def _noise(rng, height: int, width: int, cell: float) -> np.ndarray:
    """Smooth noise with bumps of about ``cell`` pixels, (H, W) float32, about [0, 1]."""
    rows, columns = int(height / cell) + 2, int(width / cell) + 2
    coarse = rng.random((rows, columns), np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def _colour(hue: float, saturation: float, value: float) -> np.ndarray:
    """BGR (3,) float32 of OpenCV's hue [0, 180), saturation and value [0, 255]."""
    hsv = np.uint8([[[int(hue) % 180, int(saturation), int(value)]]])
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0].astype(np.float32)
