"""Objects in the annotations of a dataset: boxes, labels and masks."""

from __future__ import annotations

import math
import reprlib
from dataclasses import dataclass, field

import numpy as np

from mmkd.datasets._coco import box_fault

NAMED = 3  # faults that are kept in words


@dataclass
class Objects:
    """Counts over the annotations of a dataset, of objects unless noted otherwise.

    Attributes:
        classes: Classes of the dataset, 0 if they are not known.
        with_mask: Whether a loading step needs a mask of each object.
        polygons: Whether it reads polygons alone (``poly2mask=False``).
        images: Images whose annotations are lists of objects.
        empty: Images without any, or with ignored ones only.
        kept: Those that training uses.
        ignored: Crowd, difficult and ignored ones.
        degenerate: Boxes without area, or with coordinates that are not finite.
        bad: Positions of images with a box that has no area inside its image.
        beyond: Boxes that reach more than two pixels beyond their image.
        beyond_path: The first image of one.
        faults: The first entries that no loading step can work with, a sentence each.
        faulty: How many there are.
    """

    classes: int = 0
    with_mask: bool = False
    polygons: bool = False
    images: int = 0
    empty: int = 0
    kept: int = 0
    ignored: int = 0
    degenerate: int = 0
    bad: list[int] = field(default_factory=list)
    beyond: int = 0
    beyond_path: str = ''
    faults: list[str] = field(default_factory=list)
    faulty: int = 0

    def add(self, info: dict, index: int) -> None:
        """Count the objects of an image.

        Args:
            info: ``dataset.get_data_info(index)``, with ``instances``.
            index: Position of the image.
        """
        width, height = size_of(info)
        classes = self.classes or math.inf
        kept, bad = self.kept, False
        for position, one in enumerate(info['instances']):
            try:  # what nearly all objects pass
                x1, y1, x2, y2 = one['bbox']
                good = 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
                good = good and 0 <= one['bbox_label'] < classes and not one['ignore_flag']
                good = good and not (self.with_mask and self._mask_fault(one, width, height))
            except (KeyError, TypeError, ValueError):
                good = False
            if good:
                self.kept += 1
            else:
                bad |= self._examine(one, position, info)
        self.images += 1
        self.empty += self.kept == kept
        if bad:
            self.bad.append(index)

    def add_label(self, info: dict) -> None:
        """Look at the class of an image, where it has one."""
        label = info.get('gt_label')
        if self.classes and _is_number(label) and not 0 <= label < self.classes:
            self._blame(
                f'image {info.get("img_path")} has label {label}, but there are {self.classes} '
                'classes'
            )

    def _blame(self, fault: str) -> None:
        self.faulty += 1
        if len(self.faults) < NAMED:
            self.faults.append(fault)

    def _examine(self, one: dict, position: int, info: dict) -> bool:
        """Count an unusual object; True if its box cannot be used in training."""
        problem = self._fault(one, info)
        if problem:
            self._blame(f'object {position} (from 0) of {info.get("img_path")} {problem}')
            return False
        ignored = bool(one.get('ignore_flag'))
        self.ignored += ignored
        self.kept += not ignored
        if 'bbox' not in one:
            return False
        self.degenerate += degenerate(one['bbox'])
        width, height = size_of(info)
        if one['bbox'][2] > width + 2 or one['bbox'][3] > height + 2:
            self.beyond += 1
            self.beyond_path = self.beyond_path or str(info.get('img_path'))
        return not usable(one, info)

    def _fault(self, one: dict, info: dict) -> str:
        label = one.get('bbox_label')
        if 'bbox' in one and not _four_numbers(one['bbox']):
            return box_fault(one['bbox'], 'x1, y1, x2, y2')
        if self.classes and _is_number(label) and not 0 <= label < self.classes:
            return f'has label {label}, but there are {self.classes} classes'
        return self._mask_fault(one, *size_of(info)) if self.with_mask else ''

    def _mask_fault(self, one: dict, width: float, height: float) -> str:
        if self.polygons and isinstance(one.get('mask'), dict) and not one.get('ignore_flag'):
            return (
                'has a mask of run-length code, and LoadAnnotations(poly2mask=False) ignores such '
                'objects. Leave poly2mask out'
            )
        return mask_fault(one, width, height)

    def note(self) -> str:
        """A complaint about boxes that look like those of another layout; '' without one."""
        # A few rounded coordinates are usual; a tenth of all boxes is not.
        if self.beyond * 10 <= self.kept + self.ignored:
            return ''
        return (
            f'{self.beyond} of {self.kept + self.ignored} boxes reach beyond their image, for '
            f'example in {self.beyond_path}: does the file say x, y, width, height in that order, '
            'and is the size of the image right?'
        )


def size_of(info: dict) -> tuple[float, float]:
    """Width and height from the annotations; infinite where they are missing."""
    return info.get('width') or math.inf, info.get('height') or math.inf


def mask_fault(one: dict, width: float, height: float) -> str:
    """Why ``LoadAnnotations`` cannot make the mask of an object; '' if it can."""
    mask = one.get('mask')
    if mask is None:
        return 'has no mask (no segmentation in the file), but the pipeline loads masks'
    if isinstance(mask, dict):
        size = mask.get('size')
        if size is None or 'counts' not in mask or list(size) == [height, width]:
            return ''
        return f'has a mask of size {size} (height, width), its image {[height, width]}'
    if isinstance(mask, list) and all(isinstance(part, list) for part in mask):
        return ''
    return f'has the mask {reprlib.repr(mask)}, where polygons or a run-length code are needed'


def degenerate(box) -> bool:
    """Whether a box (x1, y1, x2, y2) has no area or a coordinate that is not finite."""
    x1, y1, x2, y2 = box
    return not (x2 > x1 and y2 > y1 and math.isfinite(x1 + y1 + x2 + y2))


def usable(instance: dict, info: dict) -> bool:
    """Whether a box has area inside its image; objects without a box are usable."""
    if 'bbox' not in instance:
        return True
    x1, y1, x2, y2 = instance['bbox']
    width, height = size_of(info)
    return not degenerate(instance['bbox']) and x1 < width and y1 < height and x2 > 0 and y2 > 0


def _four_numbers(box) -> bool:
    """Whether a box is four numbers, finite or not."""
    return hasattr(box, '__len__') and len(box) == 4 and all(map(_is_number, box))


def _is_number(value) -> bool:
    return isinstance(value, (int, float, np.number))
