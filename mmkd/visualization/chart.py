"""A small chart of curves."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

from mmkd.visualization import canvas


def curves(
    lines: Mapping[str, Mapping[int, float]], caption: str, detail: str, size: tuple[int, int]
) -> np.ndarray:
    """A small chart: a value over epochs for each name, the last one written beside its end."""
    width, height = size
    chart = canvas.blank(width, height)
    points = [(x, y) for line in lines.values() for x, y in line.items()]
    last = max((x for x, _ in points), default=1)
    top = max((y for _, y in points), default=1.0) * 1.08 or 1.0
    left, right, bottom = 8, width - 118, height - 20

    def at(x: float, y: float) -> tuple[int, int]:
        return round(left + (right - left) * x / last), round(bottom - (bottom - 4) * y / top)

    cv2.line(chart, at(0, 0), at(last, 0), canvas.GREY, 1)
    for x in sorted({x for x, _ in points}):
        canvas.write(chart, str(x), (at(x, 0)[0] - 4, bottom + 2), 11, canvas.GREY)
    used: list[int] = []
    for index, (name, line) in sorted(enumerate(lines.items()), key=lambda item: -_end(item[1][1])):
        colour = canvas.COLOURS[index]
        path = np.array([at(0, 0), *(at(x, y) for x, y in sorted(line.items()))], np.int32)
        cv2.polylines(chart, [path], False, colour, 2, cv2.LINE_AA)
        y = max([path[-1][1] - 8, *(u + 15 for u in used)])
        used.append(y)
        canvas.write(chart, f'{name} {_end(line):.1f}', (path[-1][0] + 5, y), 11, colour, bold=True)
    return canvas.captioned(chart, caption, detail)


def _end(line: Mapping[int, float]) -> float:
    return line[max(line)] if line else 0.0
