"""Small charts: curves, and bars with their spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from mmkd.visualization import canvas

#: numbers below the axis, at most
TICKS = 12


def curves(
    lines: Mapping[str, Mapping[int, float]], caption: str, detail: str, size: tuple[int, int]
) -> np.ndarray:
    """A small chart: a value over epochs for each name, the last one written beside its end."""
    width, height = size
    chart = canvas.blank(width, height)
    points = [(x, y) for line in lines.values() for x, y in line.items()]
    last = max((x for x, _ in points), default=1)
    top = max((y for _, y in points), default=1.0) * 1.08 or 1.0
    labels = {name: f'{name} {_end(line):.1f}' for name, line in lines.items()}
    room = max((canvas.text_width(text, 11, bold=True) for text in labels.values()), default=0)
    left, right, bottom = 8, width - min(max(room + 8, 118), width // 2), height - 20

    def at(x: float, y: float) -> tuple[int, int]:
        return round(left + (right - left) * x / last), round(bottom - (bottom - 4) * y / top)

    cv2.line(chart, at(0, 0), at(last, 0), canvas.GREY, 1)
    ticks = sorted({x for x, _ in points})
    for x in ticks[:: -(-len(ticks) // TICKS) or 1]:
        canvas.write(chart, str(x), (at(x, 0)[0] - 4, bottom + 2), 11, canvas.GREY)
    used: list[int] = []
    for index, (name, line) in sorted(enumerate(lines.items()), key=lambda item: -_end(item[1][1])):
        colour = canvas.COLOURS[index]
        path = np.array([at(0, 0), *(at(x, y) for x, y in sorted(line.items()))], np.int32)
        cv2.polylines(chart, [path], False, colour, 2, cv2.LINE_AA)
        y = max([path[-1][1] - 8, *(u + 15 for u in used)])
        used.append(y)
        text = canvas.shorten(labels[name], width - path[-1][0] - 6, 11, bold=True)
        canvas.write(chart, text, (path[-1][0] + 5, y), 11, colour, bold=True)
    return canvas.captioned(chart, caption, detail)


@dataclass(frozen=True)
class Bar:
    """A mean, the values behind it, and which of the colours."""

    name: str
    mean: float
    values: tuple[float, ...]
    colour: int


def bars(entries: Sequence[Bar], caption: str, detail: str, width: int) -> np.ndarray:
    """Horizontal bars from 0 to a mean, with a line from the lowest to the highest value, and a
    dot for each; the mean is written behind it."""
    line = 24
    chart = canvas.blank(width, max(line * len(entries), line) + 6)
    names = max((canvas.text_width(bar.name, 12) for bar in entries), default=0)
    left, right = min(names, width // 2) + 10, width - 52
    top = max((abs(v) for bar in entries for v in (bar.mean, *bar.values)), default=1.0) or 1.0

    def at(value: float) -> int:
        return round(left + (right - left) * max(value, 0.0) / top)

    for index, bar in enumerate(entries):
        y = line * index + 4
        middle, colour = y + 8, canvas.COLOURS[bar.colour % len(canvas.COLOURS)]
        canvas.write(chart, canvas.shorten(bar.name, left - 8, 12), (0, y), 12)
        cv2.rectangle(chart, (left, y), (max(at(bar.mean), left + 1), y + 16), colour, -1)
        ends = min(bar.values, default=bar.mean), max(bar.values, default=bar.mean)
        cv2.line(chart, (at(ends[0]), middle), (at(ends[1]), middle), canvas.INK, 2)
        for value in bar.values:
            cv2.circle(chart, (at(value), middle), 3, canvas.INK, -1, cv2.LINE_AA)
        canvas.write(chart, f'{bar.mean:.1f}', (max(map(at, ends)) + 8, y), 12, bold=True)
    return canvas.captioned(chart, caption, detail)


def _end(line: Mapping[int, float]) -> float:
    return line[max(line)] if line else 0.0
