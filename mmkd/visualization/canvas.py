"""Drawing on BGR images (H, W, 3) uint8: overlays, boxes, text, and pictures put together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

INK, GREY, RED, WHITE = (40, 34, 30), (125, 115, 108), (40, 40, 200), (255, 255, 255)
TALLEST = 20  # height of a picture at most, in widths
ACCENT = (20, 130, 250)  # cells of a mask
COLOURS = (  # Okabe and Ito's, told apart by colour-blind readers too; BGR
    (0, 94, 213),
    (178, 114, 0),
    (115, 158, 0),
    (167, 121, 204),
    (0, 159, 230),
    (233, 180, 86),
    (66, 228, 240),
    (120, 120, 120),
)


def colour_of(label: int, palette: Sequence | None = None) -> tuple[int, int, int]:
    """BGR colour of a class; ``palette`` holds RGB, as dataset meta information does."""
    if palette is not None and 0 <= label < len(palette):
        return tuple(int(v) for v in palette[label][::-1])  # type: ignore[return-value]
    return COLOURS[label % len(COLOURS)]


@lru_cache
def _font(size: int, bold: bool) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    import matplotlib  # for its fonts only; mmengine depends on it anyway

    name = 'DejaVuSans-Bold.ttf' if bold else 'DejaVuSans.ttf'
    path = Path(matplotlib.get_data_path()) / 'fonts' / 'ttf' / name
    return ImageFont.truetype(str(path), size) if path.is_file() else ImageFont.load_default(size)


def text_width(text: str, size: int = 13, bold: bool = False) -> int:
    return int(_font(size, bold).getlength(text)) + 1


def write(
    image: np.ndarray,
    text: str,
    at: tuple[int, int],
    size: int = 13,
    colour: tuple[int, int, int] = INK,
    bold: bool = False,
) -> None:
    """Write one line of text in place, its upper left corner at (x, y)."""
    x, y = at
    box = (slice(max(y, 0), y + size + 6), slice(max(x, 0), x + text_width(text, size, bold) + 2))
    if not image[box].size:
        return
    patch = Image.fromarray(np.ascontiguousarray(image[box][..., ::-1]))
    corner = (min(x, 0), min(y, 0))
    ImageDraw.Draw(patch).text(corner, text, font=_font(size, bold), fill=colour[::-1])
    image[box] = np.asarray(patch)[..., ::-1]


def shorten(text: str, width: int, size: int = 13, bold: bool = False) -> str:
    """``text``, its end replaced by an ellipsis where it is wider than ``width`` pixels."""
    if text_width(text, size, bold) <= width:
        return text
    while text and text_width(text + '…', size, bold) > width:
        text = text[:-1]
    return text.rstrip() + '…'


def wrapped(text: str, width: int, lines: int) -> list[str]:
    """Bold ``text`` in at most so many lines, broken at spaces; the last one may be shortened."""
    found, words = [], text.split(' ')
    while len(found) < lines - 1 and text_width(' '.join(words), bold=True) > width:
        fit = 1
        while text_width(' '.join(words[: fit + 1]), bold=True) <= width:
            fit += 1
        if fit == len(words):
            break
        found.append(shorten(' '.join(words[:fit]), width, bold=True))
        words = words[fit:]
    return [*found, shorten(' '.join(words), width, bold=True)]


def blank(width: int, height: int) -> np.ndarray:
    return np.full((height, width, 3), 255, np.uint8)


def beside(pictures: Sequence[np.ndarray], gap: int = 12, low: bool = False) -> np.ndarray:
    """Pictures from left to right, on white; ``low`` lines up their lower edges."""
    height = max(p.shape[0] for p in pictures)
    cells: list[np.ndarray] = []
    for picture in pictures:
        cell = blank(picture.shape[1], height)
        top = height - picture.shape[0] if low else 0
        cell[top : top + picture.shape[0]] = picture
        cells += [blank(gap, height), cell]
    return np.concatenate(cells[1:], 1)


def below(pictures: Sequence[np.ndarray], gap: int = 12) -> np.ndarray:
    """Pictures from top to bottom, on white."""
    width = max(p.shape[1] for p in pictures)
    cells: list[np.ndarray] = []
    for picture in pictures:
        cell = blank(width, picture.shape[0])
        cell[:, : picture.shape[1]] = picture
        cells += [blank(width, gap), cell]
    return np.concatenate(cells[1:], 0)


def framed(picture: np.ndarray, margin: int = 16) -> np.ndarray:
    return cv2.copyMakeBorder(
        picture, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=WHITE
    )


def captioned(
    picture: np.ndarray,
    caption: str,
    detail: str = '',
    scale: tuple[str, str] | None = None,
    lines: int = 1,
) -> np.ndarray:
    """A picture below a bold caption and a grey line.

    Args:
        picture (np.ndarray): (H, W, 3).
        caption, detail (str): the two lines.
        scale (tuple[str, str] | None): what the coldest and hottest colours stand for, drawn too.
        lines (int): that the caption may have.
    """
    width = picture.shape[1]
    *above, last = wrapped(caption, width, lines)
    heads = [blank(width, 18) for _ in above]
    for head, line in zip(heads, above, strict=True):
        write(head, line, (0, 1), 13, bold=True)
    bar = blank(width, 38)
    write(bar, last, (0, 1), 13, bold=True)
    room = width
    if scale is not None:
        room -= text_width(''.join(scale), 12) + 78
        x = room + 8
        write(bar, scale[0], (x, 19), 12, GREY)
        x += text_width(scale[0], 12) + 3
        ramp = np.linspace(0, 1, 60, dtype=np.float32)[None].repeat(9, 0)
        bar[23:32, x : x + 60] = overlay_heat(np.full((9, 60, 3), 200, np.uint8), ramp)
        write(bar, scale[1], (x + 63, 19), 12, GREY)
    write(bar, shorten(detail, room, 12), (0, 19), 12, GREY)
    return np.concatenate([*heads, bar, picture])


def paragraph(lines: Sequence[tuple[str, tuple[int, int, int]]], width: int) -> np.ndarray:
    """Lines of text with their colours, one below the other."""
    result = blank(width, 19 * max(len(lines), 1))
    for index, (line, colour) in enumerate(lines):
        write(result, shorten(line, width, 13), (0, 19 * index + 1), 13, colour)
    return result


def enlarge(image: np.ndarray, width: int) -> np.ndarray:
    """Scale an image to a width; enlarged pixels stay sharp when few.

    A column of pixels does not become a picture that fills the memory: one that is taller than
    ``TALLEST`` widths is squeezed.
    """
    height = min(max(round(image.shape[0] * width / image.shape[1]), 1), TALLEST * width)
    shrinking = width < image.shape[1]
    how = cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC
    return cv2.resize(image, (width, height), interpolation=how)


def faded(image: np.ndarray, strength: float = 0.45) -> np.ndarray:
    """A pale grey version, on which colours can be distinguished."""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return cv2.addWeighted(grey, strength, np.full_like(grey, 255), 1 - strength, 0)


def overlay_mask(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Keep the image where ``mask`` (H, W) is set, tinted and outlined; fade the rest."""
    mask = mask.astype(bool)
    tinted = cv2.addWeighted(image, 0.72, np.full_like(image, ACCENT), 0.28, 0)
    result = np.where(mask[..., None], tinted, faded(image, 0.55))
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(result, contours, -1, ACCENT, max(image.shape[1] // 250, 1))
    return result


def overlay_heat(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Colour an image by ``heat`` (H, W) in [0, 1]; little heat leaves it pale."""
    heat = np.clip(heat, 0, 1)
    colours = cv2.applyColorMap((255 * heat).astype(np.uint8), cv2.COLORMAP_TURBO)
    share = (0.35 + 0.5 * np.sqrt(heat))[..., None]
    return (colours * share + faded(image, 0.7) * (1 - share)).astype(np.uint8)


def overlay_classes(
    image: np.ndarray, labels: np.ndarray, palette: Sequence | None, classes: int
) -> np.ndarray:
    """Colour an image by class indices (H, W); other pixels stay pale."""
    result = faded(image)
    for label in np.unique(labels):
        if 0 <= label < classes:
            tint = np.full_like(image, colour_of(int(label), palette))
            where = (labels == label)[..., None]
            result = np.where(where, cv2.addWeighted(image, 0.35, tint, 0.65, 0), result)
    return result


def resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Class indices or a mask (H, W) at another (width, height), by the nearest pixel."""
    # OpenCV resizes neither bool nor int64; float32 holds class indices exactly.
    values = np.asarray(labels).astype(np.float32)
    return cv2.resize(values, size, interpolation=cv2.INTER_NEAREST).astype(np.int32)


def tint(image: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """An image with the pixels of ``mask`` (H, W) coloured and outlined."""
    mixed = cv2.addWeighted(image, 0.5, np.full_like(image, colour), 0.5, 0)
    result = np.where(mask[..., None], mixed, image)
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(result, contours, -1, colour, max(image.shape[1] // 250, 1))
    return result


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray,
    names: Sequence[str],
    colours: Sequence[tuple[int, int, int]],
) -> np.ndarray:
    """Boxes (G, 4) in pixels of ``image`` with a name each, largest first."""
    image = image.copy()
    order = sorted(range(len(boxes)), key=lambda i: -float(np.prod(boxes[i][2:] - boxes[i][:2])))
    for i in order:
        x1, y1, x2, y2 = (round(float(v)) for v in boxes[i])
        cv2.rectangle(image, (x1, y1), (x2, y2), colours[i], 2, cv2.LINE_AA)
    taken: list[tuple[int, int, int, int]] = []
    for i in order:
        if names[i]:
            _label(image, boxes[i], names[i], colours[i], taken)
    return image


def _label(image: np.ndarray, box: np.ndarray, name: str, colour: tuple, taken: list) -> None:
    """A name on its own ground, where it does not hide another one if that can be had."""
    width, height = text_width(name, 11) + 5, 15
    x1, y1, x2, y2 = (round(float(v)) for v in box)
    places = [(x1, y1 - height), (x1, y1), (x1, y2 - height), (x1, y2), (x2 - width, y1 - height)]
    limit = image.shape[1] - width, image.shape[0] - height
    places = [(min(max(x, 0), limit[0]), min(max(y, 0), limit[1])) for x, y in places]

    def hidden(place: tuple[int, int]) -> int:
        x, y = place
        wide = (min(x + width, tx + tw) - max(x, tx) for tx, _, tw, _ in taken)
        high = (min(y + height, ty + th) - max(y, ty) for _, ty, _, th in taken)
        return sum(max(w, 0) * max(h, 0) for w, h in zip(wide, high, strict=True))

    x, y = min(places, key=hidden)
    taken.append((x, y, width, height))
    cv2.rectangle(image, (x, y), (x + width - 1, y + height - 1), colour, -1)
    dark = sum(colour) < 480
    write(image, name, (x + 2, y), 11, WHITE if dark else INK)


def save(picture: np.ndarray, path: str | Path) -> Path:
    """Write a picture; its folder is made.

    Raises:
        OSError: it cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), picture):
        raise OSError(f'could not write {path}')
    return path
