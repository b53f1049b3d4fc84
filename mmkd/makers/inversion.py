"""Inversion: a data set out of a trained network alone, images that it answers as asked."""

from __future__ import annotations

import json
import os.path as osp
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch

from mmkd.chain import Maker, Product
from mmkd.chain.product import digest, write_json
from mmkd.config import type_name
from mmkd.engine.console.screen import current_screen
from mmkd.families import DETECTORS, family_of
from mmkd.makers import label_files
from mmkd.makers.inverting import Inverter, class_loss, detection_loss, layout
from mmkd.makers.label_folder import claim, dated, describe, write_compact
from mmkd.makers.networks import given_teacher, named_classes, on_gpu
from mmkd.makers.pictures import spread
from mmkd.options import check_factors, check_list, check_number, check_size
from mmkd.registry import MAKERS
from mmkd.teacher import Teacher
from mmkd.visualization import canvas

OWNER = 'Inversion'
FACTORS = dict(task=1.0, l2=0.0, tv=4e-4, bn=0.3)
#: pixels by which images of a classifier are rolled
JITTER = 2


@MAKERS.register_module()
class Inversion(Maker):
    """A labelled data set out of a trained network alone, where its images are not to be had.

    DeepInversion (Yin et al., CVPR 2020): noise is optimised, not a network, until the teacher's
    own loss on labels that are drawn first is low and each BatchNorm sees the statistics that it
    remembers of its training:
    ``task + l2 ||x|| + tv TV(x) + bn sum_l(||mu_l - mean_l|| + ||var_l - variance_l||)``.
    A classifier gets each class equally often and the cross entropy, a detector boxes of random
    places and classes and its ordinary loss. Images without labels from elsewhere are nearly always
    better where there are some; those need no maker, but ``mmkd.ImageFolder``.

    PNGs are in ``images/``, a classifier's in a folder for each class, with ``manifest.json`` for
    ``mmkd.ImageFolder(manifest=…)``; a detector's boxes are in ``annotations.json`` (COCO).
    ``dataset.py`` has the labelled dataset for a config, ``check.png`` some images, ``info.json``
    what the terms were before and after, and for a classifier the share of images that it
    classifies as asked. If it is interrupted, the same command goes on behind the last batch.

    ``tv`` is that of the code (NVlabs/DeepInversion) for CIFAR, 2.5e-5, at its batch of 256 images:
    norms are of one image here, so that they do not depend on the batch. The code has ``bn=100``
    for CIFAR and ``bn=0.01``, ``lr=0.25`` for ImageNet. A small network answered hardly an image
    as asked at 100, so that the default is 0.3: look at the printed terms, and lower ``bn`` where
    the task's stays high.

    Args:
        size (int | list[int]): height and width of the images, as the teacher sees them.
        count (int): images.
        batch (int): images that are optimised together, and over which statistics are taken.
        steps (int): of Adam for each batch.
        lr (float): its first rate, which falls to 0 as a cosine; of pixels in units of 64.
        factors (dict[str, float] | None): of ``'task'`` (1), ``'l2'`` (0), ``'tv'`` (4e-4) and
            ``'bn'`` (0.3).
        objects (int): of a detector's image at most; at least one.
        sides (list[float]): least and largest size of an object, the root of its area over the
            shorter side of the image.
        classes (list[str] | None): of the teacher, if its checkpoint does not name them.
        seed (int): of all that is drawn.
        pictures (int): in ``check.png``.
        overwrite (bool): delete what other options or another teacher left in the folder.

    Raises:
        ValueError: no teacher, or one that neither classifies images nor finds boxes; options out
            of range; names that are not as many as its classes, or a classifier's that cannot be
            those of folders; fewer images than classes; no BatchNorm to compare with; a folder with
            other results.
    """

    def __init__(
        self,
        size: Any,
        count: int,
        batch: int = 64,
        steps: int = 2000,
        lr: float = 0.1,
        factors: Mapping[str, float] | None = None,
        objects: int = 3,
        sides: Sequence[float] = (0.2, 0.6),
        classes: Sequence[str] | None = None,
        seed: int = 0,
        pictures: int = 16,
        overwrite: bool = False,
    ) -> None:
        self.size = check_size(OWNER, size)
        self.count = check_number(OWNER, 'count', count, 1, whole=True)
        self.batch = check_number(OWNER, 'batch', batch, 1, whole=True)
        self.steps = check_number(OWNER, 'steps', steps, 1, whole=True)
        self.lr = check_number(OWNER, 'lr', lr, above=0)
        self.factors = check_factors(OWNER, factors, FACTORS)
        self.objects = check_number(OWNER, 'objects', objects, 1, whole=True)
        self.sides = [
            check_number(OWNER, 'a side', s, above=0, most=1)
            for s in check_list(OWNER, 'sides', sides)
        ]
        if len(self.sides) != 2 or self.sides[0] > self.sides[1]:
            raise ValueError(
                f'Inversion: sides must be the least and the largest size, found {sides!r}.'
            )
        self.classes = None if classes is None else check_list(OWNER, 'classes', classes)
        self.seed = check_number(OWNER, 'seed', seed, 0, 2**31, whole=True)
        self.pictures = check_number(OWNER, 'pictures', pictures, 1, whole=True)
        self.overwrite = overwrite

    def __call__(self, given: Mapping[str, Product], work_dir: str) -> Product:
        product = given_teacher(OWNER, given)
        teacher = on_gpu(Teacher(product.config, product.checkpoint))
        self.detects = self._kind(teacher.model) != 'classifier'
        self.names = self._names(teacher.model)
        jitter = 0 if self.detects else JITTER
        inverter = Inverter(teacher.model, self.factors, self.steps, self.lr, jitter)
        if self.factors['bn'] and not inverter.statistics.norms:
            raise ValueError(
                f'Inversion: {type_name(teacher.model)} has no BatchNorm whose statistics images '
                "could fit. Set factors=dict(bn=0); such images fit the teacher's answer alone."
            )
        info = self._info(product)
        other = 'images of another teacher or with other options'
        claim(work_dir, info, self.overwrite, OWNER, other, ('parts', 'images'))
        parts = [self._part(inverter, k, work_dir) for k in range(-(-self.count // self.batch))]
        return self._finish(parts, work_dir, info)

    # -------------------------------------------------------------------------------------- images

    def _part(self, inverter: Inverter, number: int, out: str) -> dict[str, Any]:
        """The files of a batch, their labels, and what its terms were."""
        path = osp.join(out, 'parts', f'{number:05d}.json')
        if not osp.isfile(path):
            first = number * self.batch
            seed = self.seed * 1_000_003 + number
            places = range(first, min(first + self.batch, self.count))
            labels, loss = self._asked(inverter.model, places, seed)
            made = inverter(loss, len(places), self.size, seed)
            files = [self._file(i, labels[n]) for n, i in enumerate(places)]
            for file, image in zip(files, made['images'], strict=True):
                label_files.write_map(osp.join(out, file), image.permute(1, 2, 0).numpy())
            part = dict(files=files, labels=labels, task=made['task'], bn=made['bn'])
            if not self.detects:
                part['right'] = self._right(inverter, made['images'], labels)
            write_compact(path, part)
            told = ', '.join(f'{k} {part[k][0]:.3g} to {part[k][1]:.3g}' for k in ('task', 'bn'))
            current_screen().say(f'{places[-1] + 1} of {self.count} images: {told}')
        return json.loads(Path(path).read_text())

    def _asked(self, model: Any, places: range, seed: int) -> tuple[list, Any]:
        """Labels of the images, and the loss that they give."""
        if self.detects:
            draw = np.random.default_rng(seed)
            span = (self.sides[0], self.sides[1])
            layouts = [layout(self.size, len(self.names), self.objects, span, draw) for _ in places]
            return layouts, detection_loss(model, self.size, layouts)
        labels = [i % len(self.names) for i in places]
        return labels, class_loss(model, torch.tensor(labels))

    def _file(self, number: int, label: Any) -> str:
        folder = 'images' if self.detects else f'images/{self.names[label]}'
        return f'{folder}/{number:06d}.png'

    @staticmethod
    @torch.no_grad()
    def _right(inverter: Inverter, images: torch.Tensor, labels: list[int]) -> int:
        """How many of the written images the classifier classifies as asked."""
        device = next(inverter.model.parameters()).device
        said = inverter.model(inverter.normalised(images.to(device)), mode='tensor').argmax(1)
        return int((said.cpu() == torch.tensor(labels)).sum())

    # --------------------------------------------------------------------------------------- files

    def _finish(self, parts: list[dict], out: str, info: dict[str, Any]) -> Product:
        files = [file for part in parts for file in part['files']]
        labels = [label for part in parts for label in part['labels']]
        scores = {}
        for name in ('task', 'bn'):
            for which, place in (('first', 0), ('last', 1)):
                values = [part[name][place] * len(part['files']) for part in parts]
                scores[f'{name}_{which}'] = sum(values) / len(files)
        if not self.detects:
            scores['agreement'] = sum(part['right'] for part in parts) / len(files)
            current_screen().say(f'The teacher sees in {scores["agreement"]:.1%} what was asked')
        write = self._boxes if self.detects else self._folders
        path, entry, shown = write(files, labels, out, info)
        describe(OWNER, 'inverted', out, entry, shown, dated(info | dict(terms=scores)))
        return Product('', path, out, scores)

    def _folders(self, files: list, labels: list, out: str, info: dict) -> tuple[str, dict, list]:
        """The manifest, the dataset of class folders, and pictures."""
        entries = [dict(file=f, label=label) for f, label in zip(files, labels, strict=True)]
        path = osp.join(out, 'manifest.json')
        write_json(path, dict(files=entries, classes=self.names))
        entry = dict(
            type='mmkd.ClassFolders',
            data_root=osp.abspath(out),
            data_prefix=dict(img_path='images'),
            metainfo=dict(classes=tuple(self.names)),
        )
        shown = [
            canvas.captioned(
                canvas.enlarge(mmcv.imread(osp.join(out, one['file'])), label_files.WIDTH),
                self.names[one['label']],
                osp.basename(one['file']),
            )
            for one in spread(entries, self.pictures)
        ]
        return path, entry, shown

    def _boxes(self, files: list, labels: list, out: str, info: dict) -> tuple[str, dict, list]:
        """The annotations, their dataset, and pictures."""
        objects = {
            osp.join(out, file): (
                self.size,
                [label_files.Object(b, c, 1.0, False) for b, c in zip(*found, strict=True)],
            )
            for file, found in zip(files, labels, strict=True)
        }
        root = osp.join(out, 'images')
        categories = [dict(id=i, name=name) for i, name in enumerate(self.names, 1)]
        path = label_files.write_coco(out, root, objects, categories, info)
        entry = dict(
            type='mmdet.CocoDataset',
            ann_file=osp.abspath(path),
            data_prefix=dict(img=osp.abspath(root)),
            metainfo=dict(classes=tuple(self.names)),
        )
        shown = [
            label_files.picture_of_boxes(file, objects[file][1], self.names, scored=False)
            for file in spread([*objects], self.pictures)
        ]
        return path, entry, shown

    # ------------------------------------------------------------------------------------- options

    def _info(self, product: Product) -> dict[str, Any]:
        own = ['size', 'count', 'batch', 'steps', 'lr', 'factors', 'seed']
        own += ['objects', 'sides'] if self.detects else []
        options = {name: getattr(self, name) for name in own}
        found = dict(teacher=product.config, checkpoint=digest(product.checkpoint))
        return dict(found, classes=self.names, **options)

    def _kind(self, model: Any) -> str:
        family = family_of(model)
        if family != 'classifier' and (family not in DETECTORS or family == 'instance'):
            raise ValueError(
                f'Inversion asks a classifier for classes or a detector for boxes, but '
                f'{type_name(model)} is neither ({family}).'
            )
        return family

    def _names(self, model: Any) -> list[str]:
        names = named_classes(OWNER, model, self.classes)
        if not self.detects and self.count < len(names):
            raise ValueError(
                f'Inversion: count={self.count} is less than the {len(names)} classes, of which '
                'each gets an image at least. Raise it.'
            )
        no_folders = [n for n in names if n in ('', '.', '..') or '/' in n or '\\' in n]
        twice = [n for n in dict.fromkeys(names) if names.count(n) > 1]
        if not self.detects and (no_folders or twice):
            why = 'cannot name a folder' if no_folders else 'names several classes'
            raise ValueError(
                'Inversion: each class has a folder of its name, but '
                f'{", ".join(map(repr, no_folders or twice))} {why}. Name the classes by classes=.'
            )
        return names
