"""MergeDetections: what several detectors found, as annotations of one label space."""

from __future__ import annotations

import json
import os.path as osp
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmkd.chain import Maker, Product
from mmkd.chain.product import write_json
from mmkd.names import did_you_mean, no_file
from mmkd.options import check_number
from mmkd.registry import MAKERS
from mmkd.teachers.means import read_weights

Found = tuple[np.ndarray, np.ndarray]


def overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of a box (4,) with others (P, 4), both xyxy."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    inter = np.clip(high - low, 0, None).prod(1)
    areas = [(x[..., 2:] - x[..., :2]).prod(-1) for x in (box, others)]
    return inter / np.maximum(areas[0] + areas[1] - inter, 1e-9)


def merge_boxes(
    found: Mapping[str, Found], weights: Mapping[str, float], iou: float = 0.55
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes of one class in one image, found by teachers that know the class.

    In the order of weight times score, a box that no earlier one takes begins a cluster and takes
    all that overlap it. The cluster's box is the mean weighted by weight times score. Its score is
    ``sum_i s_i score_i / sum_i s_i`` over all given teachers, with the best of each teacher's boxes
    and 0 for one that has none in it.

    Args:
        found (dict[str, tuple]): by teacher, boxes (P, 4) xyxy and scores (P,); empty where it saw
            nothing.
        weights (dict[str, float]): s, by teacher.
        iou (float): overlap with the first box from which on a box is the same object.

    Returns:
        tuple: boxes (Q, 4) and scores (Q,), best first.
    """
    names = [name for name in found if weights[name] > 0]
    if not sum(len(found[name][1]) for name in names):
        return np.zeros((0, 4)), np.zeros(0)
    boxes = np.concatenate([found[name][0].reshape(-1, 4) for name in names]).astype(np.float64)
    scores = np.concatenate([found[name][1] for name in names]).astype(np.float64)
    owner = np.concatenate([np.full(len(found[n][1]), i) for i, n in enumerate(names)])
    shares = np.array([weights[name] for name in names], dtype=np.float64)
    strength = scores * shares[owner]
    left, merged = list(np.argsort(-strength, kind='stable')), []
    while left:
        near = overlap(boxes[left[0]], boxes[left]) >= iou
        near[0] = True
        own = [place for place, taken in zip(left, near, strict=True) if taken]
        left = [place for place, taken in zip(left, near, strict=True) if not taken]
        best = np.zeros(len(names))
        np.maximum.at(best, owner[own], scores[own])
        total = strength[own].sum()
        mean = (boxes[own] * strength[own, None]).sum(0) / total if total > 0 else boxes[own[0]]
        merged.append((mean, float((shares * best).sum() / shares.sum())))
    order = sorted(range(len(merged)), key=lambda i: -merged[i][1])
    return np.stack([merged[i][0] for i in order]), np.array([merged[i][1] for i in order])


@MAKERS.register_module()
class MergeDetections(Maker):
    """Annotations for a student from the detections of several teachers (for domains: Ruder, 2017).

    Each teacher's result file is what ``CocoMetric`` writes with ``outfile_prefix=``. Classes are
    merged by name. A teacher that does not know a class says nothing about it; one that knows it
    and saw nothing counts as a score of 0. ``merged.json`` is a COCO file with a ``score`` for each
    box.

    Args:
        members (dict[str, dict]): by teacher, ``results`` (the ``.bbox.json``) and ``annotations``
            (the COCO file whose categories it was evaluated with).
        images (str): COCO file that lists the images, such as an ``annotations`` file.
        weights (dict[str, float] | str | None): by teacher, or the file of
            :class:`~mmkd.makers.DomainWeights`; None: all alike.
        classes (list[str] | None): of the result; None: all, in the order in which teachers bring
            them.
        iou (float): overlap from which on two boxes are one object.
        least (float): boxes of a lower merged score are left out.

    Raises:
        ValueError: no member, or one that knows none of the classes; a class that no
            member knows; unsuitable weights or options.
        FileNotFoundError: a file does not exist.
    """

    def __init__(
        self,
        members: Mapping[str, Mapping[str, str]],
        images: str,
        weights: Mapping[str, float] | str | None = None,
        classes: Sequence[str] | None = None,
        iou: float = 0.55,
        least: float = 0.05,
    ) -> None:
        if not isinstance(members, Mapping) or not members:
            raise ValueError(
                'MergeDetections needs members=dict(name=dict(results=…, annotations=…), …), found '
                f'{members!r}.'
            )
        for name, entry in members.items():
            if not isinstance(entry, Mapping) or {*entry} != {'results', 'annotations'}:
                raise ValueError(
                    f'MergeDetections: member {name!r} must be dict(results=…, annotations=…), '
                    f'found {entry!r}.'
                )
        self.members, self.images = members, images
        self.weights = read_weights(weights, list(members))
        self.classes = None if classes is None else list(classes)
        self.iou = check_number('MergeDetections', 'iou', iou, 0, 1)
        self.least = check_number('MergeDetections', 'least', least, 0, 1)

    def __call__(self, given: Mapping[str, Product], work_dir: str) -> Product:
        known = {name: _names(entry['annotations']) for name, entry in self.members.items()}
        classes = self._classes(known)
        images = _read(self.images)['images']
        found: dict[tuple[Any, str], dict[str, list]] = {}
        for name, entry in self.members.items():
            for row in _read(entry['results']):
                key = row['image_id'], known[name].get(row['category_id'], '')
                found.setdefault(key, {}).setdefault(name, []).append(row)
        annotations: list[dict] = []
        for image in images:
            for number, label in enumerate(classes, 1):
                own = found.get((image['id'], label), {})
                knows = [name for name in known if label in known[name].values()]
                boxes, scores = merge_boxes(
                    {name: _arrays(own.get(name, [])) for name in knows}, self.weights, self.iou
                )
                for box, score in zip(boxes, scores, strict=True):
                    if score >= self.least:
                        annotations.append(_row(len(annotations) + 1, image, number, box, score))
        path = osp.join(work_dir, 'merged.json')
        categories = [dict(id=number, name=label) for number, label in enumerate(classes, 1)]
        write_json(path, dict(images=images, categories=categories, annotations=annotations))
        return Product('', path, work_dir)

    def _classes(self, known: Mapping[str, Mapping[int, str]]) -> list[str]:
        union = list(dict.fromkeys(label for own in known.values() for label in own.values()))
        if self.classes is None:
            return union
        for label in self.classes:
            if label not in union:
                raise ValueError(
                    f'MergeDetections: no member knows the class {label!r}; they know {union}.'
                    f'{did_you_mean(label, union)}'
                )
        for name, own in known.items():
            if not {*own.values()} & {*self.classes}:
                raise ValueError(
                    f'MergeDetections: member {name!r} knows none of {self.classes}; it knows '
                    f'{[*own.values()]}. Leave it out, or name its classes.'
                )
        return self.classes


def _read(path: str) -> Any:
    if not osp.isfile(path):
        raise FileNotFoundError(f'MergeDetections: {no_file(path, ".json")}')
    return json.loads(Path(path).read_text())


def _names(path: str) -> dict[int, str]:
    return {entry['id']: entry['name'] for entry in _read(path)['categories']}


def _arrays(rows: list[dict]) -> Found:
    """Boxes xyxy and scores of rows of a result file, whose boxes have a width and a height."""
    boxes = np.array([row['bbox'] for row in rows], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes, np.array([row['score'] for row in rows], dtype=np.float64)


def _row(number: int, image: dict, category: int, box: np.ndarray, score: float) -> dict:
    x1, y1, x2, y2 = (round(float(v), 3) for v in box)
    return dict(
        id=number,
        image_id=image['id'],
        category_id=category,
        bbox=[x1, y1, round(x2 - x1, 3), round(y2 - y1, 3)],
        area=round((x2 - x1) * (y2 - y1), 3),
        iscrowd=0,
        score=round(float(score), 6),
    )
