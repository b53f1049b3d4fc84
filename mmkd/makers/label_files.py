"""Pseudo labels as files: COCO json, VOC xml, label maps; and pictures to check them."""

from __future__ import annotations

import os
import os.path as osp
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import cv2
import mmcv
import numpy as np

from mmkd.chain.product import write_json
from mmkd.checkpoint import atomic_file
from mmkd.visualization import canvas

#: pictures in a line of the page
COLUMNS, WIDTH = 4, 320


class Object(NamedTuple):
    """What is written of an object.

    Args:
        box (list[float]): x1, y1, x2, y2 in pixels of the file.
        label (int): of its class.
        score (float): of the teacher.
        ignored (bool): neither an object nor background.
        mask (dict | None): run-length code, of an instance.
    """

    box: list[float]
    label: int
    score: float
    ignored: bool
    mask: dict[str, Any] | None = None


def chosen(
    found: Mapping[str, Any], thresholds: Sequence[float], ignore: float | None
) -> list[Object]:
    """Objects of an image that reach the threshold of their class.

    Args:
        found (Mapping): of :meth:`~mmkd.makers.image_views.ImageViews.boxes`.
        thresholds (Sequence[float]): least score of each class.
        ignore (float | None): objects from this score on, below the threshold, are neither objects
            nor background.
    """
    masks = found.get('masks') or [None] * len(found['scores'])
    rows = zip(found['boxes'], found['labels'], found['scores'], masks, strict=True)
    return [
        Object(box, label, score, score < thresholds[label], mask)
        for box, label, score, mask in rows
        if score >= thresholds[label] or (ignore is not None and score >= ignore)
    ]


def write_coco(
    out: str,
    root: str,
    images: Mapping[str, tuple[tuple[int, int], list[Object]]],
    categories: Sequence[Mapping[str, Any]],
    info: Mapping[str, Any],
) -> str:
    """``annotations.json``, with a ``score`` for each object; ignored ones have ``iscrowd=1``.

    Masks are run-length codes, and the area is theirs.

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
        for one in objects:
            numbers = dict(id=len(annotations) + 1, image_id=number)
            numbers.update(category_id=categories[one.label]['id'])
            annotations.append(dict(numbers, **_annotation(one)))
    path = osp.join(out, 'annotations.json')
    content = dict(info=dict(info), images=listed, annotations=annotations)
    write_json(path, content | dict(categories=[dict(c) for c in categories]))
    return path


def _annotation(one: Object) -> dict[str, Any]:
    """Box, area, score and mask of an object, as COCO's files have them."""
    x1, y1, x2, y2 = one.box
    w, h = round(x2 - x1, 3), round(y2 - y1, 3)
    rest = dict(bbox=[x1, y1, w, h], iscrowd=int(one.ignored), score=one.score)
    if one.mask is None:
        return dict(rest, area=round(w * h, 3))
    return dict(rest, area=int(_decoded(one.mask).sum()), segmentation=one.mask)


def _decoded(mask: Mapping[str, Any]) -> np.ndarray:
    """A mask (H, W) of 0 and 1 of its run-length code."""
    from pycocotools import mask as coding

    return coding.decode(dict(mask))


def write_voc(
    out: str, images: Mapping[str, tuple[tuple[int, int], list[Object]]], names: Sequence[str]
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
        for (x1, y1, x2, y2), label, score, ignored, _ in objects:
            one = ElementTree.SubElement(top, 'object')
            _texts(one, name=names[label], difficult=int(ignored), score=score)
            low = dict(xmin=min(round(x1) + 1, width), ymin=min(round(y1) + 1, height))
            high = dict(xmax=max(round(x2), low['xmin']), ymax=max(round(y2), low['ymin']))
            _texts(ElementTree.SubElement(one, 'bndbox'), **low, **high)
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

    A class without a threshold, such as a spare output of the network, is 255 as well.

    Args:
        reduce_zero_label (bool): the dataset takes 1 off when it loads a map, so 1 is added.
    """
    labels = probabilities.argmax(0)
    limits = np.full(len(probabilities), np.inf)
    limits[: len(thresholds)] = thresholds
    sure = probabilities.max(0) >= limits[labels]
    return np.where(sure, labels + int(reduce_zero_label), 255).astype(np.uint8)


def write_map(path: str, labels: np.ndarray) -> None:
    """A label map, or an image in BGR, as PNG, complete or not at all."""
    os.makedirs(osp.dirname(path), exist_ok=True)
    done, buffer = cv2.imencode('.png', labels)
    assert done
    with atomic_file(path) as part:
        Path(part).write_bytes(buffer.tobytes())


def picture_of_boxes(
    file: str, objects: list[Object], names: Sequence[str], scored: bool = True
) -> np.ndarray:
    """An image with its boxes and the outlines of masks; grey ones are ignored.

    Args:
        scored (bool): names are followed by scores.
    """
    image = mmcv.imread(file)
    picture = canvas.enlarge(image, WIDTH)
    colours = [canvas.GREY if x.ignored else canvas.colour_of(x.label) for x in objects]
    for one, colour in zip(objects, colours, strict=True):
        if one.mask is not None:
            whole = canvas.resize_labels(_decoded(one.mask), picture.shape[1::-1]).astype(np.uint8)
            lines, _ = cv2.findContours(whole, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(picture, lines, -1, colour, 1)
    scale = np.array(picture.shape[1::-1]) / image.shape[1::-1]
    boxes = np.tile(scale, 2) * np.array([x.box for x in objects]).reshape(-1, 4)
    said = [f'{names[x.label]} {x.score:.2f}' if scored else names[x.label] for x in objects]
    said = ['' if x.ignored else text for x, text in zip(objects, said, strict=True)]
    picture = canvas.draw_boxes(picture, boxes, said, colours)
    return canvas.captioned(
        picture, Path(file).name, f'{sum(not x.ignored for x in objects)} objects'
    )


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
