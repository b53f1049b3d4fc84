"""Checks a built dataset before training, and reports its errors in one line each."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

from mmengine.logging import print_log

from mmkd.datasets import _audit_cache
from mmkd.datasets._class_names import Names, read_names
from mmkd.datasets._coco import DataError
from mmkd.datasets._files import fault, is_local, shown, similar
from mmkd.datasets._kinds import describe, is_coco, leaves, shuffled
from mmkd.datasets._label_images import look_at_labels
from mmkd.datasets._objects import Objects
from mmkd.datasets._paths import check_files, check_names
from mmkd.datasets._pictures import Pictures, file_loader

TOGETHER = 16  # files that are looked for at a time


@dataclass
class Audit:
    """The findings of ``audit`` in one dataset.

    Attributes:
        name: Class and annotation file.
        images: Images the dataset gives.
        looked_at: Number of files that were checked in the time allowed.
        empty: Images without ground truth, or with ignored boxes only.
        degenerate: Boxes without area or with coordinates that are not finite; of COCO, those its
            loader left out.
        missing: Image file that cannot be read -> why: it does not exist, is empty, ….
        unknown: Name in the annotation files that is no class -> number of boxes (COCO, VOC), or
            label value -> pixels in a sample of the label images.
        absent: Classes that do not occur in the annotation files.
        notes: Further complaints, a sentence each.
        objects: Counts of the annotated objects.
        ids: ``img_id`` -> ``img_path`` and number of objects of the images.
        longest: Ratio of the sides of the image of the most extreme shape, and its position.
    """

    name: str
    images: int
    looked_at: int = 0
    empty: int = 0
    degenerate: int = 0
    missing: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, int | None] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    objects: Objects = field(default_factory=Objects, repr=False)
    ids: dict = field(default_factory=dict, repr=False)
    longest: tuple[float, int] = (0.0, 0)

    @property
    def clean(self) -> bool:
        """Whether there is nothing to complain about; images without ground truth are fine."""
        return not (self.degenerate or self.missing or self.unknown or self.absent or self.notes)

    @property
    def reasons(self) -> list[str]:
        """Missing files with the reason in brackets."""
        return [f'{path} ({why})' for path, why in self.missing.items()]

    def __str__(self) -> str:
        part = f' (files of {self.looked_at} looked at)' if 0 < self.looked_at < self.images else ''
        items = [f'{self.images} images{part}']
        if self.empty:
            items.append(f'{self.empty} without ground truth')
        if self.degenerate:
            items.append(f'{self.degenerate} degenerate boxes')
        if self.missing:
            items.append(f'{len(self.missing)} image files cannot be read: {shown(self.reasons)}')
        if self.unknown:
            counted = [f'{k} ({"?" if v is None else v})' for k, v in self.unknown.items()]
            items.append(f'left out, not among the classes: {shown(counted)}')
        if self.absent:
            items.append(f'classes that never occur: {shown(self.absent)}')
        return '; '.join([f'{self.name}: {items[0]}', *items[1:], *self.notes])


def audit(dataset, budget: float = 2.0) -> list[Audit]:
    """Check a built dataset, log one line per dataset and stop at errors that prevent training.

    Reads all that the dataset holds in memory, VOC's XML files, the class list of a COCO json,
    file sizes and the beginnings of image files; a few are decoded. When time runs out, a fair
    sample of the files has been looked at. All files of test data are, for one that is missing
    ends the evaluation.

    A clean audit is kept (:mod:`mmkd.datasets._audit_cache`): where annotations, settings, folders
    and a sample of the files are as they were, nothing is read again.

    Args:
        dataset: A ``BaseDataset``, or wrappers around several.
        budget: Seconds for the files of each dataset.

    Returns:
        One ``Audit`` per dataset inside the wrappers.

    Raises:
        FileNotFoundError: Annotations or image folders are missing, no image file could be found,
            or a segmentation label is missing.
        ValueError: The dataset is empty, none of its classes occurs in the annotation file, or
            an image of test data, an object or a label image cannot be loaded.
    """
    return [_audit(one, budget) for one in leaves(dataset)]


def _audit(dataset, budget: float) -> Audit:
    deadline = time.monotonic() + budget
    if not hasattr(dataset, 'get_data_info'):
        return Audit(describe(dataset), len(dataset))
    check_files(dataset)
    if not len(dataset):
        raise ValueError(f'dataset {describe(dataset)} is empty')
    steps = getattr(dataset.pipeline, 'transforms', ())
    classes = len(dataset.metainfo.get('classes') or ())
    masks = [step for step in steps if getattr(step, 'with_mask', False)]
    polygons = any(not getattr(step, 'poly2mask', True) for step in masks)
    objects = Objects(classes, bool(masks), polygons)
    report = Audit(describe(dataset), len(dataset), objects=objects)
    loader = file_loader(dataset)
    settings = vars(dataset) if loader is None else vars(loader)
    local = is_local(settings)
    key = _audit_cache.key_of(dataset, report.name)
    known = key and _audit_cache.load(key, Audit)
    if known:
        if is_coco(dataset):  # whose labels are numbered as the file says
            _compare_names(known, dataset, read_names(dataset, deadline))
        print_log(f'{known}; files as at the last audit', logger='current')
        return known
    names = read_names(dataset, time.monotonic() + budget / 2) if is_local(vars(dataset)) else None
    check_names(dataset, names)
    _compare_names(report, dataset, names)
    pictures = Pictures(loader if local else None)
    readable = _look_at_images(report, dataset, deadline, local, pictures)
    report.notes += pictures.notes()
    look_at_labels(report, dataset, local, deadline)
    _stop_or_note(report, dataset, pictures, readable)
    print_log(
        str(report), logger='current', level=logging.INFO if report.clean else logging.WARNING
    )
    if key and report.clean:
        _audit_cache.save(key, report)
    return report


def _compare_names(report: Audit, dataset, names: Names | None) -> None:
    """Enter unknown and absent classes into the report."""
    classes = list(dataset.metainfo.get('classes') or ())
    if names is None or not classes:
        return
    if getattr(dataset, 'joined_labels', False):  # of several files, numbered by name
        dataset.numbered_as = tuple(classes)
        return
    counts = names.counts
    report.unknown = {k: v for k, v in counts.items() if k not in classes and v != 0}
    if names.complete:
        report.absent = [name for name in classes if counts.get(name, 0) == 0]
    if is_coco(dataset):
        listed = [name for name in counts if name in classes]
        # CocoDataset numbers the classes as the file lists them, whatever the config says.
        dataset.numbered_as = tuple(listed)
        if listed != classes:
            report.notes.append(
                'the file lists other classes or another order than metainfo, so label i is class '
                f'i of {shown(listed)}: teacher and student must agree on that'
            )


def _look_at_images(
    report: Audit, dataset, deadline: float, local: bool, pictures: Pictures
) -> int:
    """Go through all annotations, and the files of test data; other files while time lasts.

    Returns:
        How many images can be read.
    """
    objects, seen, repeated, readable = report.objects, set(), [], 0
    order = shuffled(len(dataset))
    with ThreadPoolExecutor(TOGETHER) as pool:  # a network's disk answers many at once
        while indices := list(islice(order, TOGETHER)):
            paths = {}
            for index in indices:
                info = dataset.get_data_info(index)
                if 'instances' in info:
                    objects.add(info, index)
                    report.ids[info.get('img_id')] = info.get('img_path'), len(info['instances'])
                objects.add_label(info)
                path = info.get('img_path')
                if not isinstance(path, str):
                    continue
                if path in seen:
                    repeated.append(path)
                seen.add(path)
                if local and '://' not in path:
                    paths[index] = path
            if not dataset.test_mode and report.looked_at and time.monotonic() > deadline:
                continue
            report.looked_at += len(paths)
            for (index, path), problem in zip(
                paths.items(), pool.map(fault, paths.values()), strict=True
            ):
                if problem:
                    report.missing[path] = problem
                else:
                    readable += 1
                    pictures.look(dataset.get_data_info(index), index)
    _enter(report, dataset, pictures, repeated)
    return readable


def _enter(report: Audit, dataset, pictures: Pictures, repeated: list[str]) -> None:
    """Enter the findings in annotations and files."""
    objects = report.objects
    report.longest = pictures.longest
    report.empty, report.degenerate = objects.empty, objects.degenerate
    if repeated:
        report.notes.append(
            f'{len(repeated)} entries repeat an image: {shown(dict.fromkeys(repeated), 3)}'
        )
    if objects.note():
        report.notes.append(objects.note())
    one_file = hasattr(dataset, 'cat_img_map') and not getattr(dataset, 'joined_labels', False)
    if one_file and len(report.ids) == len(dataset):
        # CocoDataset leaves bad boxes out without a word; the map still counts them.
        listed = [dataset.cat_img_map.get(cat, ()) for cat in dataset.cat_ids]
        left_out = sum(key in report.ids for images in listed for key in images)
        left_out -= objects.kept + objects.ignored
        report.degenerate += left_out
        if left_out > 0:
            counts = Counter(key for images in listed for key in images)
            paths = (path for key, (path, kept) in report.ids.items() if counts[key] > kept)
            report.notes.append(f'boxes left out by the loader are in {shown(paths, 3)}')


def _stop_or_note(report: Audit, dataset, pictures: Pictures, readable: int) -> None:
    """Stop at images that are needed and cannot be used; others are noted."""
    broken = pictures.broken
    if report.missing and not readable:
        path, why = next(iter(report.missing.items()))
        raise FileNotFoundError(
            f'dataset {report.name}: none of {report.looked_at} image files can be read, for '
            f'example {os.path.abspath(path)}: {why}{similar(path)}; try data_root or data_prefix'
        )
    if dataset.test_mode and (report.missing or broken):
        unread = report.reasons + broken
        raise DataError(
            f'dataset {report.name}: {len(unread)} image(s) cannot be read, and the evaluation '
            f'needs all: {shown(unread, 3)}; replace the files or take them out of the annotations'
        )
    if broken and len(broken) == pictures.opened:
        raise DataError(
            f'dataset {report.name}: none of {pictures.opened} images looked at can be decoded: '
            f'{shown(broken, 3)}'
        )
    if broken:
        report.notes.append(
            f'{len(broken)} image(s) of {pictures.opened} opened cannot be decoded and will be '
            f'skipped: {shown(broken, 3)}'
        )
    objects = report.objects
    if objects.faults:
        raise DataError(
            f'dataset {report.name}: {objects.faulty} annotation(s) cannot be used: '
            f'{"; ".join(objects.faults)}'
        )
