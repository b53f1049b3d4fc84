"""Thresholds of pseudo labels: numbers, or such that images have as many objects as labels."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmkd.config import load_config
from mmkd.makers.pictures import training_set
from mmkd.names import did_you_mean, find_name, no_file
from mmkd.options import check_number

MATCH = 'match'


def check_thresholds(owner: str, threshold: Any, classes: Sequence[str]) -> list[float]:
    """The threshold of each class.

    Args:
        threshold (float | Mapping[str, float]): of all, or by class; ``'other'`` is of the rest.

    Raises:
        ValueError: a number out of range; a class that there is not, or that has none.
    """
    if not isinstance(threshold, Mapping):
        return [float(check_number(owner, 'threshold', threshold, 0, 1))] * len(classes)
    given = {}
    for name, value in threshold.items():
        found = find_name(name, [*classes, 'other'])
        if found not in (*classes, 'other'):
            raise ValueError(
                f'{owner}: threshold names {name!r}, but the classes are {", ".join(classes)}.'
                f'{did_you_mean(name, classes)}'
            )
        given[found] = float(check_number(owner, f'threshold of {name}', value, 0, 1))
    missing = [name for name in classes if name not in given and 'other' not in given]
    if missing:
        raise ValueError(
            f'{owner}: threshold has no number for {", ".join(missing)}; other=… is that of the '
            'rest.'
        )
    return [given.get(name, given.get('other', 0.0)) for name in classes]


def check_match(owner: str, threshold: Any, labelled: str | None, per_class: bool = False) -> None:
    """ValueError for options of ``'match'`` without their company."""
    if threshold == MATCH and labelled is None:
        raise ValueError(
            f"{owner}: threshold='match' counts the objects of labelled images; set labelled= to "
            'their COCO file or config.'
        )
    if per_class and threshold != MATCH:
        raise ValueError(f"{owner}: per_class=True is an option of threshold='match'.")


def matched(scores: Iterable[float], images: int, mean: float) -> tuple[float, int]:
    """The score from which on ``mean`` objects an image remain, and how many those are.

    Equal scores at the threshold are all kept.

    Args:
        scores (Iterable[float]): of all objects in all images.
        images (int): how many images there are.
    """
    ordered = sorted(scores, reverse=True)
    count = math.floor(mean * images + 0.5)
    if count == 0 or not ordered:
        return 1.0, sum(score >= 1 for score in ordered)
    least = ordered[min(count, len(ordered)) - 1]
    return least, sum(score >= least for score in ordered)


def match_thresholds(
    found: Iterable[Mapping[str, Any]],
    counts: Mapping[str, float],
    classes: Sequence[str],
    per_class: bool,
) -> list[float]:
    """The threshold of each class, at which there are as many objects as in labelled images.

    Args:
        found (Iterable[Mapping]): ``scores`` and ``labels`` of each image.
        counts (Mapping[str, float]): labelled objects of each class, per image.
        per_class (bool): each class by itself; else one threshold for all.
    """
    images = list(found)
    pairs = [p for one in images for p in zip(one['labels'], one['scores'], strict=True)]
    if not per_class:
        total = sum(counts[name] for name in classes)
        return [matched((s for _, s in pairs), len(images), total)[0]] * len(classes)
    return [
        matched((s for label, s in pairs if label == i), len(images), counts[name])[0]
        for i, name in enumerate(classes)
    ]


def labelled_counts(
    owner: str, source: str, classes: Sequence[str]
) -> tuple[dict[str, float], list[dict]]:
    """Objects of each class per image of a labelled set, and its categories, id and name.

    Args:
        source (str): a COCO file, or a config with a training set.
        classes (Sequence[str]): of the teacher.

    Raises:
        ValueError: other classes than the teacher's; no image; annotations of no category.
        FileNotFoundError: no such file.
    """
    if source.endswith('.py') or '::' in source:
        dataset = training_set(load_config(source), pipeline=[])
        images, categories = len(dataset), []
        objects = (o for i in range(images) for o in dataset.get_data_info(i)['instances'])
        labels = [o['bbox_label'] for o in objects if not _ignored(o)]
        names = [str(name) for name in dataset.metainfo.get('classes') or classes]
        numbers = dict(enumerate(names))
    else:
        if not Path(source).is_file():
            raise FileNotFoundError(f'{owner}: labelled: {no_file(source, ".json")}')
        held = json.loads(Path(source).read_text())
        categories = [dict(id=c['id'], name=c['name']) for c in held['categories']]
        numbers = {c['id']: c['name'] for c in categories}
        labels = [a['category_id'] for a in held['annotations'] if not a.get('iscrowd')]
        unknown = {*labels} - {*numbers}
        if unknown:
            raise ValueError(
                f'{owner}: {source} has annotations of the category_id '
                f'{", ".join(sorted(map(str, unknown)))}, which its categories do not list. Add '
                'them there, or leave such annotations out.'
            )
        names, images = list(numbers.values()), len(held['images'])
    if sorted(names) != sorted(classes) or not images:
        raise ValueError(
            f'{owner}: {source} has {images} images and the classes {", ".join(names)}, but the '
            f'teacher knows {", ".join(classes)}. Both must be the same.'
        )
    found = dict.fromkeys(classes, 0)
    for label in labels:
        found[numbers[label]] += 1
    return {name: count / images for name, count in found.items()}, categories


def _ignored(instance: Mapping[str, Any]) -> bool:
    return bool(instance.get('ignore_flag'))
