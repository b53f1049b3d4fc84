"""Boxes that a teacher found on images, as the annotations of a dataset."""

from __future__ import annotations

import os.path as osp
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mmkd.chain import Product
from mmkd.engine.console.screen import current_screen
from mmkd.makers import label_files
from mmkd.makers.label_folder import dated, finish
from mmkd.makers.pictures import spread
from mmkd.makers.score_thresholds import (
    MATCH,
    check_thresholds,
    labelled_counts,
    match_thresholds,
)


class BoxLabels:
    """Which boxes become labels, and their files.

    Args:
        owner (str): the maker, for messages and files.
        names (Sequence[str]): of the classes, in the order of the labels.
        threshold (float | dict[str, float] | str), labelled (str | None), per_class (bool), ignore
            (float | None), least (float): as of :class:`~mmkd.makers.PseudoLabels`.

    Raises:
        ValueError: a threshold out of range, below ``least``, or of a class that there is not;
            ``ignore`` above all thresholds; a labelled set of other classes.
        FileNotFoundError: no labelled set.
    """

    def __init__(
        self,
        owner: str,
        names: Sequence[str],
        threshold: Any,
        labelled: str | None = None,
        per_class: bool = False,
        ignore: float | None = None,
        least: float = 0,
    ) -> None:
        self.owner, self.names, self.per_class, self.ignore = owner, names, per_class, ignore
        self.least = least
        self.counts: dict[str, float] = {}
        self.categories: list[dict] = []
        if labelled is not None:
            self.counts, self.categories = labelled_counts(owner, labelled, names)
        self.limits = None if threshold == MATCH else check_thresholds(owner, threshold, names)
        if ignore is not None and self.limits and ignore >= max(self.limits):
            raise ValueError(
                f'{owner}: ignore={ignore} is not below the threshold {max(self.limits)}, so that '
                'no box is ignored. Lower it.'
            )
        lowest = min([*(self.limits or []), *([] if ignore is None else [ignore])], default=1.0)
        if lowest < least:
            raise ValueError(
                f'{owner}: a box of the score {lowest:g} is to be a label, or ignored, but boxes '
                f'below least={least:g} are not kept. Lower least, too.'
            )

    def write(
        self,
        out: str,
        root: str,
        found: Mapping[str, Any],
        info: Mapping[str, Any],
        kind: str = 'coco',
        pictures: int = 16,
        damaged: Sequence[str] = (),
    ) -> Product:
        """Annotations, ``check.png``, ``dataset.py`` and ``info.json``.

        Args:
            out (str): folder.
            root (str): folder below which the images are.
            found (Mapping): by path of the image, what
                :meth:`~mmkd.makers.image_views.ImageViews.boxes` gives.
            kind (str): ``'coco'`` or ``'voc'``.
            pictures (int): images in ``check.png``.
            damaged (Sequence[str]): what is to be said of images that are not among these.

        Raises:
            ValueError: no box reaches its threshold; there are damaged images.
        """
        limits = self.limits
        if limits is None:
            limits = match_thresholds(found.values(), self.counts, self.names, self.per_class)
        objects = {
            path: (tuple(one['size']), label_files.chosen(one, limits, self.ignore))
            for path, one in found.items()
        }
        info = dated(info, dict(zip(self.names, limits, strict=True)))
        self._report(objects, limits, found)
        path, entry = self._files(kind, out, root, objects, info)
        shown = [
            label_files.picture_of_boxes(p, objects[p][1], self.names)
            for p in spread([*objects], pictures)
        ]
        return finish(self.owner, out, path, entry, shown, info, damaged)

    def _files(
        self, kind: str, out: str, root: str, objects: dict, info: dict
    ) -> tuple[str, dict[str, Any]]:
        """The annotation file, and the dataset that reads it."""
        names = dict(classes=tuple(self.names))
        if kind == 'coco':
            ids = {c['name']: c['id'] for c in self.categories}
            categories = [
                dict(id=ids.get(name, i), name=name) for i, name in enumerate(self.names, 1)
            ]
            path = label_files.write_coco(out, root, objects, categories, info)
            return path, dict(
                type='mmdet.CocoDataset', ann_file=path, data_prefix=dict(img=root), metainfo=names
            )
        path = label_files.write_voc(out, objects, self.names)
        return path, dict(
            type='mmdet.XMLDataset',
            ann_file=path,
            data_prefix=dict(sub_data_root=''),
            ann_subdir=osp.join(osp.abspath(out), 'Annotations'),
            img_subdir=osp.abspath(root),
            metainfo=names,
        )

    def _report(self, objects: Mapping, limits: Sequence[float], found: Mapping) -> None:
        """Count the objects of each class.

        Raises:
            ValueError: there is none.
        """
        counts = Counter(o.label for _, own in objects.values() for o in own if not o.ignored)
        for i, name in enumerate(self.names):
            line = f'{name}: {counts[i]} objects of a score of at least {limits[i]:.3g}'
            current_screen().say(line)
        if not counts:
            best = sorted((s for one in found.values() for s in one['scores']), reverse=True)
            tops = ', '.join(f'{s:.3g}' for s in best[:5]) or f'below least={self.least:g}'
            raise ValueError(
                f'{self.owner}: no object of {len(found)} images reaches its threshold; the best '
                f'scores are {tops}. Lower threshold=, or see whether the teacher knows such '
                'images.'
            )
