"""PseudoLabels: what a teacher says of images without labels, as annotations of a dataset."""

from __future__ import annotations

import hashlib
import json
import os.path as osp
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import torch

from mmkd.chain import Maker, Product
from mmkd.chain.product import digest
from mmkd.checkpoint import atomic_file
from mmkd.config import load_config, type_name
from mmkd.engine.console.screen import current_screen
from mmkd.families import family_of
from mmkd.makers import label_files
from mmkd.makers.box_labels import BoxLabels
from mmkd.makers.box_voting import RULES
from mmkd.makers.image_views import ImageViews, UnreadableImage
from mmkd.makers.label_folder import (
    check_stems,
    claim,
    dated,
    finish,
    list_images,
    root_of,
    write_compact,
)
from mmkd.makers.networks import given_teacher, named_classes, on_gpu
from mmkd.makers.pictures import spread
from mmkd.makers.score_thresholds import MATCH, check_match, check_thresholds
from mmkd.options import check_choice, check_list, check_number
from mmkd.registry import MAKERS
from mmkd.teacher import Teacher

FORMATS = ('coco', 'voc', 'masks')
SHARD = 100
OWNER = 'PseudoLabels'


@MAKERS.register_module()
class PseudoLabels(Maker):
    """Annotations of images without labels by a trained detector or segmentor.

    Data distillation (Radosavovic et al., CVPR 2018): each image is seen in several sizes and
    flipped, and what all views say becomes one answer. Boxes of a class vote
    (:func:`~mmkd.makers.box_voting.vote`), probabilities of pixels are averaged, those of instance
    masks over the boxes that voted. What reaches the
    threshold is written, with ``check.png``, pictures of some images, and ``dataset.py``, the
    dataset for a config. If it is interrupted, the same command goes on; the threshold may change
    without asking the teacher again.

    Args:
        images (str): a folder, at any depth, a config whose training images are meant, or a
            ``.txt`` file of one path a line.
        format (str | None): ``'coco'`` (with instance masks, where the teacher has some) or
            ``'voc'`` for what finds objects, ``'masks'`` (PNG) for segmentors; None: ``'coco'`` or
            ``'masks'``.
        scales (list[float]): views, times the size of the test pipeline.
        flip (bool): each flipped from left to right as well.
        threshold (float | dict[str, float] | str): least score, of all classes or by class
            (``other=`` for the rest); ``'match'``: that at which an image has as many objects on
            average as a labelled one.
        labelled (str | None): COCO file or config of the labelled set, of ``'match'``; a COCO file
            also gives the ids of classes.
        per_class (bool): ``'match'`` for each class by itself.
        ignore (float | None): boxes from this score to the threshold are marked to be ignored
            (``iscrowd``, ``difficult``), neither object nor background.
        score (str): of a voted box, ``'max'`` or ``'consensus'``, see ``vote``.
        least (float): boxes of a lower score are not kept at all.
        classes (list[str] | None): of the teacher, if its checkpoint does not name them.
        reduce_zero_label (bool): the dataset of the masks takes 1 off every label; 1 is added.
        pictures (int): in ``check.png``.
        overwrite (bool): delete what other options or another teacher left in the folder.

    Raises:
        ValueError: no teacher, or one that neither finds objects nor classifies pixels; unsuitable
            options; nothing above the threshold; a folder with other results; at the end, images
            that cannot be read.
        FileNotFoundError: no images.
    """

    def __init__(
        self,
        images: str,
        format: str | None = None,
        scales: Sequence[float] = (1.0,),
        flip: bool = True,
        threshold: Any = 0.5,
        labelled: str | None = None,
        per_class: bool = False,
        ignore: float | None = None,
        score: str = 'max',
        least: float = 0.05,
        classes: Sequence[str] | None = None,
        reduce_zero_label: bool = False,
        pictures: int = 16,
        overwrite: bool = False,
    ) -> None:
        self.images, self.flip = images, flip
        self.format = check_choice(OWNER, 'format', format, (None, *FORMATS))
        scales = check_list(OWNER, 'scales', scales)
        self.scales = [float(check_number(OWNER, 'a scale', s, above=0)) for s in scales]
        self.threshold, self.labelled, self.per_class = threshold, labelled, per_class
        self.least = check_number(OWNER, 'least', least, 0, 1)
        self.ignore = check_number(OWNER, 'ignore', ignore, 0, 1, optional=True)
        self.score = check_choice(OWNER, 'score', score, RULES)
        self.classes = None if classes is None else check_list(OWNER, 'classes', classes)
        self.reduce_zero_label, self.overwrite = reduce_zero_label, overwrite
        self.pictures = check_number(OWNER, 'pictures', pictures, 1, whole=True)
        check_match(OWNER, threshold, labelled, per_class)

    def __call__(self, given: Mapping[str, Product], work_dir: str) -> Product:
        product = given_teacher(OWNER, given)
        config = load_config(product.config)
        teacher = on_gpu(Teacher(product.config, product.checkpoint))
        kind = self._format(teacher)
        self.names = named_classes(OWNER, teacher.model, self.classes)
        files = list_images(OWNER, self.images)
        info = dict(
            teacher=product.config,
            checkpoint=digest(product.checkpoint),
            scales=self.scales,
            flip=self.flip,
            score=self.score,
            least=self.least,
            format=kind,
            images=hashlib.sha256('\n'.join(files).encode()).hexdigest(),
        )
        # Maps hold the decision, boxes are decided at the end.
        decided = dict(threshold=self.threshold, reduce_zero_label=self.reduce_zero_label)
        own = decided if kind == 'masks' else {}
        claim(work_dir, dict(info, **own), self.overwrite)
        views = ImageViews(teacher.model, config, self.scales, self.flip)
        if kind == 'masks':
            return self._masks(views, files, work_dir, info)
        return self._boxes(views, files, work_dir, info, kind)

    # ---------------------------------------------------------------------------------- detectors

    def _boxes(
        self, views: ImageViews, files: list[str], out: str, info: dict, kind: str
    ) -> Product:
        labels = BoxLabels(
            OWNER,
            self.names,
            self.threshold,
            self.labelled,
            self.per_class,
            self.ignore,
            self.least,
        )
        root = root_of(self.images, files)
        if kind == 'voc':
            check_stems(root, files)
        found, damaged = self._found(views, files, out)
        return labels.write(out, root, found, info, kind, self.pictures, damaged)

    def _found(self, views: ImageViews, files: list[str], out: str) -> tuple[dict, list[str]]:
        """Voted boxes of every image that can be read, from files of parts that are done."""
        found: dict[str, Any] = {}
        damaged: list[str] = []
        for start in range(0, len(files), SHARD):
            some = files[start : start + SHARD]
            path = osp.join(out, 'parts', f'{start // SHARD:05d}.json')
            part = json.loads(Path(path).read_text()) if osp.isfile(path) else dict(found={})
            if len(part['found']) < len(some):  # a damaged image may have been repaired
                part = self._asked(views, some, part['found'], path)
                current_screen().say(f'{min(start + SHARD, len(files))} of {len(files)} images')
            found |= part['found']
            damaged += part['damaged']
        return found, damaged

    def _asked(
        self, views: ImageViews, files: Sequence[str], known: Mapping[str, Any], path: str
    ) -> dict[str, Any]:
        """A part, written and read again: boxes of images that are not known yet, too."""
        part: dict[str, Any] = dict(found={}, damaged=[])
        for file in files:
            try:
                found = known[file] if file in known else views.boxes(file, self.least, self.score)
                part['found'][file] = found
            except UnreadableImage as error:
                part['damaged'].append(str(error))
        write_compact(path, part)
        return json.loads(Path(path).read_text())

    # ---------------------------------------------------------------------------------- segmentors

    def _masks(self, views: ImageViews, files: list[str], out: str, info: dict) -> Product:
        limits = check_thresholds(OWNER, self.threshold, self.names)
        root, folder = root_of(self.images, files), osp.join(out, 'masks')
        damaged, counts, done = [], Counter(), {}
        shift = int(self.reduce_zero_label)
        if len(self.names) + shift > 255:
            raise ValueError(
                'PseudoLabels: label maps have the labels 0 to 254, too few for the '
                f'{len(self.names)} classes of the teacher.'
            )
        # Where suffixes differ the names of maps have them too: a.jpg and a.png are two images.
        suffixes = {osp.splitext(file)[1] for file in files}
        suffix = suffixes.pop() if len(suffixes) == 1 else ''
        for file in files:
            name = osp.relpath(file, root).removesuffix(suffix)
            path = osp.join(folder, f'{name}.png')
            if not osp.isfile(path):
                try:
                    probabilities = views.probabilities(file).numpy()
                except UnreadableImage as error:
                    damaged.append(str(error))
                    continue
                label_files.write_map(path, label_files.label_map(probabilities, limits, shift))
            labels = cv2.imread(path, cv2.IMREAD_GRAYSCALE)
            counts.update(dict(enumerate(torch.from_numpy(labels).flatten().bincount().tolist())))
            done[name] = file, path
        total = sum(counts.values())
        for i, name in enumerate(self.names):
            share = counts[i + shift] / max(total, 1)
            current_screen().say(f'{name}: {share:.2%} of the pixels')
        if total == counts[255]:
            raise ValueError(
                f'PseudoLabels: no pixel of {len(done)} images reaches its threshold. Lower '
                'threshold=, or see whether the teacher knows such images.'
            )
        shown = [
            label_files.picture_of_map(
                file, cv2.imread(path, cv2.IMREAD_GRAYSCALE), len(self.names), shift
            )
            for file, path in spread([*done.values()], self.pictures)
        ]
        listed = osp.join(out, 'images.txt')
        with atomic_file(listed) as part:
            Path(part).write_text(''.join(f'{name}\n' for name in done))
        entry = dict(
            type='mmseg.BaseSegDataset',
            ann_file=osp.abspath(listed),
            data_prefix=dict(img_path=root, seg_map_path=folder),
            img_suffix=suffix,
            seg_map_suffix='.png',
            reduce_zero_label=self.reduce_zero_label,
            metainfo=dict(classes=tuple(self.names)),
        )
        info = dated(info, dict(zip(self.names, limits, strict=True)))
        return finish(OWNER, out, folder, entry, shown, info, damaged)

    # ------------------------------------------------------------------------------------- options

    def _format(self, teacher: Teacher) -> str:
        family = family_of(teacher.model)
        if family in ('classifier', 'other'):
            raise ValueError(
                f'PseudoLabels: {type_name(teacher.model)} neither finds objects nor classifies '
                'pixels. The answers of a classifier are KD on images without labels.'
            )
        right: tuple[str, ...] = ('masks',) if family == 'segmentor' else ('coco', 'voc')
        if hasattr(teacher.model, 'panoptic_head'):
            right = self._of_queries(teacher)
        if self.format is not None and self.format not in right:
            raise ValueError(
                f'PseudoLabels: format={self.format!r} does not fit a {family}, but '
                f'{" or ".join(right)}.'
            )
        if right == ('masks',) and (self.threshold == MATCH or self.ignore is not None):
            raise ValueError(
                "PseudoLabels: threshold='match' and ignore= are of objects, not of pixels. Give a "
                'number, or one for each class.'
            )
        return self.format or right[0]

    def _of_queries(self, teacher: Teacher) -> tuple[str, ...]:
        """mmdet's MaskFormer and Mask2Former find objects if their config says so."""
        if not (teacher.model.test_cfg or {}).get('instance_on'):
            raise ValueError(
                f'PseudoLabels: {type_name(teacher.model)} of mmdet names objects only with '
                'model.test_cfg.instance_on=True, which its config does not have. Set it there.'
            )
        return 'coco', 'voc'
