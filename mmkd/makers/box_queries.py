"""Who finds objects on an image file, a network or a function, and what was answered so far."""

from __future__ import annotations

import json
import os.path as osp
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from torch import Tensor, nn

from mmkd.chain import Product
from mmkd.config import load_config, type_name
from mmkd.encoders.named_object import named_object
from mmkd.families import DETECTORS, family_of
from mmkd.makers.image_views import ImageViews
from mmkd.makers.label_folder import write_compact
from mmkd.makers.networks import on_gpu
from mmkd.teacher import Teacher

ASKED = 'asked.json'
_KEYS = ('boxes', 'scores', 'labels')


def finds_objects(model: nn.Module) -> bool:
    """Whether the predictions of a network are instances."""
    if hasattr(model, 'panoptic_head'):
        return bool((getattr(model, 'test_cfg', None) or {}).get('instance_on'))
    return family_of(model) in (*DETECTORS, 'weak')


class DetectingNetwork:
    """A trained detector, asked about image files by the test pipeline of its config.

    Attributes:
        names (list[str]): of its classes; empty where the checkpoint does not name them.

    Raises:
        ValueError: a network that finds no objects.
    """

    def __init__(self, owner: str, part: str, product: Product) -> None:
        network = on_gpu(Teacher(product.config, product.checkpoint))
        if not finds_objects(network.model):
            raise ValueError(
                f'{owner}: the {part}, {type_name(network.model)}, finds no objects. Name a '
                'detector; classifiers have mmkd.ActiveMixup.'
            )
        known = (getattr(network.model, 'dataset_meta', None) or {}).get('classes')
        self.names = [str(name) for name in known or ()]
        self.views = ImageViews(network.model, load_config(product.config), flip=False)

    def scores(self, file: str) -> Tensor:
        """(P,), of the boxes that it finds on an image."""
        ((sample, _, _),) = self.views.predictions(file)
        return sample.pred_instances.scores.detach().float().cpu()

    def boxes(self, file: str, least: float) -> dict[str, Any]:
        """What :meth:`~mmkd.makers.image_views.ImageViews.boxes` gives."""
        return self.views.boxes(file, least)


class DetectingFunction:
    """A function of an image, such as a call of a service.

    Args:
        call (str | Callable): ``'package.module:function'`` or ``'file.py:function'``; it gets
            uint8 RGB (H, W, 3) and returns ``boxes`` (P, 4) xyxy in its pixels, ``scores`` (P,)
            from 0 to 1 and ``labels`` (P,), places in ``names``.
        names (Sequence[str]): of the classes.

    Raises:
        TypeError: nothing that can be called.
        ValueError: no such function.
    """

    def __init__(self, owner: str, call: str | Callable, names: Sequence[str]) -> None:
        found = named_object(f'{owner}: black_box', call) if isinstance(call, str) else call
        if not callable(found):
            raise TypeError(
                f"{owner}: black_box must be a function or 'file.py:function', found {call!r}. It "
                'returns boxes, scores and labels of an image; kinds of teachers give class scores.'
            )
        self.owner, self.call, self.names = owner, found, list(names)

    def boxes(self, file: str, least: float) -> dict[str, Any]:
        """What :meth:`~mmkd.makers.image_views.ImageViews.boxes` gives.

        Boxes are cut at the borders of the image; those without area or of a lower score are left
        out.

        Raises:
            ValueError: an answer of another form.
        """
        image = mmcv.imread(file, channel_order='rgb')
        boxes, scores, labels = self._checked(file, self.call(image))
        height, width = image.shape[:2]
        boxes = boxes.clip(0, [width, height] * 2)
        kept = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1) & (scores >= least)
        return dict(
            size=[height, width],
            boxes=boxes[kept].round(3).tolist(),
            scores=scores[kept].round(6).tolist(),
            labels=labels[kept].tolist(),
        )

    def _checked(self, file: str, answer: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        where = f'{self.owner}: the answer of the black box to {file}'
        if not isinstance(answer, Mapping) or not {*_KEYS} <= {*answer}:
            raise ValueError(
                f'{where} must be a mapping with {", ".join(_KEYS)}, found {_shown(answer)}.'
            )
        boxes, scores, labels = (np.asarray(answer[key]) for key in _KEYS)
        boxes = boxes.reshape(-1, 4) if not boxes.size else boxes
        count = len(boxes)
        if boxes.shape != (count, 4) or scores.shape != (count,) or labels.shape != (count,):
            raise ValueError(
                f'{where} must have boxes (P, 4), scores (P,) and labels (P,), found '
                f'{boxes.shape}, {scores.shape} and {labels.shape}.'
            )
        boxes, scores = boxes.astype(np.float64), scores.astype(np.float64)
        if not np.isfinite(boxes).all() or not ((scores >= 0) & (scores <= 1)).all():
            raise ValueError(
                f'{where} has coordinates that are not finite, or scores that are not from 0 to 1.'
            )
        if not {*labels.tolist()} <= {*range(len(self.names))}:
            found = ', '.join(sorted({*map(str, labels.tolist())}))
            raise ValueError(
                f'{where} has the labels {found}, but the {len(self.names)} classes '
                f'({", ".join(self.names)}) are numbered from 0.'
            )
        return boxes, scores, labels.astype(np.int64)


def _shown(answer: Any) -> str:
    keys = f' with {", ".join(map(str, answer))}' if isinstance(answer, Mapping) else ''
    return f'a {type(answer).__name__}{keys}'


def check_classes(owner: str, names: Sequence[str], known: Sequence[str]) -> None:
    """ValueError if the classes of a student are known and others than those of the black box."""
    if known and sorted(known) != sorted(names):
        raise ValueError(
            f'{owner}: the black box has {len(names)} classes ({", ".join(names)}) and the student '
            f'{len(known)} ({", ".join(known)}). Both must know the same.'
        )


def read_asked(owner: str, source: str, names: Sequence[str], pool: Mapping) -> dict[str, Any]:
    """Answers of earlier rounds, by image, in the order in which they were asked.

    Args:
        source (str): ``asked.json``, or a file beside it.
        names (Sequence[str]): of the classes of the black box.
        pool (Mapping): by image.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file; other classes; an image twice, or one that is not in the
            pool.
    """
    file = osp.join(osp.dirname(source), ASKED)
    if not osp.isfile(file):
        raise FileNotFoundError(f'{owner}: there is no file {file} with the answers of a round.')
    held = json.loads(Path(file).read_text())
    if not isinstance(held, dict) or not {'classes', 'images'} <= {*held}:
        raise ValueError(f'{owner}: {file} was not written by mmkd make {owner}.')
    if held['classes'] != list(names):
        raise ValueError(
            f'{owner}: the answers in {file} are of {len(held["classes"])} classes '
            f'({", ".join(held["classes"])}), and the black box has {len(names)} '
            f'({", ".join(names)}). Both must be the same.'
        )
    counts = Counter(row['image'] for row in held['images'])
    twice = [image for image, count in counts.items() if count > 1]
    if twice:
        raise ValueError(
            f'{owner}: {len(twice)} of {len(counts)} images were asked twice in {file}, such as '
            f'{twice[0]}. Leave one answer to each.'
        )
    strange = [image for image in counts if image not in pool]
    if strange:
        raise ValueError(
            f'{owner}: {len(strange)} of {len(counts)} images in {file} are not among the '
            f'{len(pool)} of images=, such as {strange[0]}. Name the images of the round before.'
        )
    return {row['image']: {k: v for k, v in row.items() if k != 'image'} for row in held['images']}


def write_asked(folder: str, names: Sequence[str], asked: Mapping[str, Any]) -> str:
    """What :func:`read_asked` reads; returns the file."""
    file = osp.join(folder, ASKED)
    rows = [dict(image=image, **answer) for image, answer in asked.items()]
    write_compact(file, dict(classes=list(names), images=rows))
    return file
