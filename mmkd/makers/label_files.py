"""Pseudo labels as files: COCO json, VOC xml, label maps; and pictures to check them."""

from __future__ import annotations

import os
import os.path as osp
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import mmcv
import numpy as np

from mmkd.chain.product import write_json
from mmkd.checkpoint import atomic_file
from mmkd.visualization import canvas

#: pictures in a line of the page
COLUMNS, WIDTH = 4, 320


def chosen(found: Mapping[str, Any], thresholds: Sequence[float], ignore: float | None) -> list:
    """Objects of an image as (box, label, score, whether it is to be ignored).

    Args:
        found (Mapping): of :meth:`~mmkd.makers.image_views.ImageViews.boxes`.
        thresholds (Sequence[float]): least score of each class.
        ignore (float | None): objects from this score on, below the threshold, are neither objects
            nor background.
    """
    rows = zip(found['boxes'], found['labels'], found['scores'], strict=True)
    return [
        (box, label, score, score < thresholds[label])
        for box, label, score in rows
        if score >= thresholds[label] or (ignore is not None and score >= ignore)
    ]


def write_coco(
    out: str,
    root: str,
    images: Mapping[str, tuple[tuple[int, int], list]],
    categories: Sequence[Mapping[str, Any]],
    info: Mapping[str, Any],
) -> str:
    """``annotations.json``, with a ``score`` for each box; ignored ones have ``iscrowd=1``.

    Args:
        root (str): folder to which file names are relative.
        images (Mapping): by path, (H, W) and objects of :func:`chosen`.
        categories (Sequence[Mapping]): ``id`` and ``name`` in the order of the labels.
    """
    annotations: list[dict] = []
    listed = []
    for number, (path, ((height, width), objects)) in enumerate(images.items(), 1):
        name = osp.relpath(path, root).replace(os.sep, '/')
        listed.append(dict(id=number, file_name=name, width=width, height=height))
        for (x1, y1, x2, y2), label, score, ignored in objects:
            w, h = round(x2 - x1, 3), round(y2 - y1, 3)
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=categories[label]['id'],
                    bbox=[x1, y1, w, h],
                    area=round(w * h, 3),
                    iscrowd=int(ignored),
                    score=score,
                )
            )
    path = osp.join(out, 'annotations.json')
    content = dict(info=dict(info), images=listed, annotations=annotations)
    write_json(path, content | dict(categories=[dict(c) for c in categories]))
    return path


def write_voc(
    out: str, images: Mapping[str, tuple[tuple[int, int], list]], names: Sequence[str]
) -> str:
    """``Annotations/<name>.xml``, with a ``score`` for each box, and ``ImageSets/Main/pseudo.txt``.

    Coordinates are whole numbers from 1, both corners included. Ignored boxes are ``difficult``.
    """
    stems = [Path(path).stem for path in images]
    for folder in ('Annotations', 'ImageSets/Main'):
        os.makedirs(osp.join(out, folder), exist_ok=True)
    for stem, (path, ((height, width), objects)) in zip(stems, images.items(), strict=True):
        top = ElementTree.Element('annotation')
        _texts(top, filename=Path(path).name)
        _texts(ElementTree.SubElement(top, 'size'), width=width, height=height, depth=3)
        for (x1, y1, x2, y2), label, score, ignored in objects:
            one = ElementTree.SubElement(top, 'object')
            _texts(one, name=names[label], difficult=int(ignored), score=score)
            corners = dict(xmin=round(x1) + 1, ymin=round(y1) + 1, xmax=round(x2), ymax=round(y2))
            corners['xmax'] = max(corners['xmax'], corners['xmin'])
            corners['ymax'] = max(corners['ymax'], corners['ymin'])
            _texts(ElementTree.SubElement(one, 'bndbox'), **corners)
        ElementTree.indent(top)
        with atomic_file(osp.join(out, 'Annotations', f'{stem}.xml')) as part:
            ElementTree.ElementTree(top).write(part)
    listed = osp.join(out, 'ImageSets', 'Main', 'pseudo.txt')
    with atomic_file(listed) as part:
        Path(part).write_text(''.join(f'{stem}\n' for stem in stems))
    return listed


def _texts(parent: ElementTree.Element, **values: Any) -> None:
    for name, value in values.items():
        ElementTree.SubElement(parent, name).text = str(value)


def label_map(
    probabilities: np.ndarray, thresholds: Sequence[float], reduce_zero_label: bool = False
) -> np.ndarray:
    """uint8 (H, W): the best class of each pixel of (K, H, W), 255 below its threshold.

    Args:
        reduce_zero_label (bool): the dataset takes 1 off when it loads a map, so 1 is added.
    """
    labels = probabilities.argmax(0)
    sure = probabilities.max(0) >= np.asarray(thresholds)[labels]
    return np.where(sure, labels + int(reduce_zero_label), 255).astype(np.uint8)


def write_map(path: str, labels: np.ndarray) -> None:
    """A label map as PNG, complete or not at all."""
    os.makedirs(osp.dirname(path), exist_ok=True)
    done, buffer = cv2.imencode('.png', labels)
    assert done
    with atomic_file(path) as part:
        Path(part).write_bytes(buffer.tobytes())


def picture_of_boxes(file: str, objects: list, names: Sequence[str]) -> np.ndarray:
    """An image with its boxes; grey ones are ignored."""
    image = mmcv.imread(file)
    picture = canvas.enlarge(image, WIDTH)
    scale = WIDTH / image.shape[1]
    for box, label, score, ignored in objects:
        x1, y1, x2, y2 = (round(scale * v) for v in box)
        colour = canvas.GREY if ignored else canvas.colour_of(label)
        cv2.rectangle(picture, (x1, y1), (x2, y2), colour, 1)
        if not ignored:
            canvas.write(picture, f'{names[label]} {score:.2f}', (x1, max(0, y1 - 12)), 10, colour)
    return canvas.captioned(picture, Path(file).name, f'{sum(not x[3] for x in objects)} objects')


def picture_of_map(file: str, labels: np.ndarray, classes: int, shift: int) -> np.ndarray:
    """An image with its classes; pale where nothing is said."""
    image = mmcv.imread(file)
    shown = canvas.overlay_classes(image, labels.astype(int) - shift, None, classes)
    share = float((labels != 255).mean())
    return canvas.captioned(
        canvas.enlarge(shown, WIDTH), Path(file).name, f'{share:.0%} of the pixels'
    )


def write_page(path: str, pictures: Sequence[np.ndarray]) -> None:
    """One picture of all."""
    lines = [list(pictures[i : i + COLUMNS]) for i in range(0, len(pictures), COLUMNS)]
    canvas.save(canvas.framed(canvas.below([canvas.beside(line) for line in lines])), Path(path))
