"""Objects of several sources on the same images, each of which knows classes of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.dataset import BaseDataset

from mmkd.datasets._class_names import coco_categories
from mmkd.datasets._kinds import is_coco
from mmkd.functional.boxes import iou_matrix
from mmkd.options import check_list, check_number
from mmkd.registry import DATASETS


@DATASETS.register_module()
def JoinLabels(
    dataset: dict, others: Sequence[dict], classes: Sequence[str], iou: float = 0.5
) -> BaseDataset:
    """A dataset with the objects of others on its images, and with the classes of all.

    For classes that are added to a detector: labels of the new ones, and what a teacher finds of
    the old ones (``mmkd make PseudoLabels``). Or for several files of which each has labels of some
    classes. Classes are matched by name.

    Args:
        dataset (dict): a BaseDataset of images and objects, such as ``mmdet.CocoDataset``. Its
            ``metainfo=dict(classes=(…))`` names the classes that it has labels for; its filter
            comes after joining.
        others (list[dict]): datasets with objects on files that ``dataset`` has too; their other
            images do not count.
        classes (list[str]): of all sources, in the order of the labels.
        iou (float): an object that overlaps one of an earlier source by this is left out: a teacher
            may take a new class for one that it knows. 1 keeps all but equal boxes.

    Raises:
        ValueError: a source with a class that is not in ``classes``, or without any image of
            ``dataset``; ``iou`` not above 0 and at most 1.
        TypeError: a wrapper.
    """
    iou = check_number('JoinLabels', 'iou', iou, most=1, above=0)
    names = [str(name) for name in check_list('JoinLabels', 'classes', classes)]
    built = _bare(dict(dataset, lazy_init=True))
    load = built.load_data_list
    more = [_by_file(_bare(dict(one)), names) for one in others]

    def joined() -> list[dict]:
        entries = load()
        own = _labels(built, names)
        for entry in entries:
            entry['instances'] = [
                dict(o, bbox_label=own[o['bbox_label']]) for o in entry['instances']
            ]
        files = [os.path.realpath(entry['img_path']) for entry in entries]
        for source, found in zip(others, more, strict=True):
            if not set(files) & set(found):
                raise ValueError(
                    f'JoinLabels: none of the {len(found)} images of {source.get("ann_file")!r} is '
                    f'one of the {len(files)} of the dataset, whose first is {files[0]}. Are both '
                    'of the same folder?'
                )
            for entry, file in zip(entries, files, strict=True):
                entry['instances'] += _apart(found.get(file, ()), entry['instances'], iou)
        built._metainfo['classes'] = tuple(names)
        return entries

    built.load_data_list = joined
    built.full_init()
    del built.load_data_list  # the class has it, and workers get no function of here
    built.joined_labels = True
    return built


def _bare(config: dict) -> BaseDataset:
    built = DATASETS.build(config)
    if not isinstance(built, BaseDataset):
        raise TypeError(
            f'JoinLabels takes datasets without wrappers, found a {type(built).__name__}. Wrap '
            'JoinLabels instead.'
        )
    return built


def _labels(dataset: BaseDataset, names: Sequence[str]) -> list[int]:
    """For each class of a dataset its label among all."""
    own = [str(name) for name in dataset.metainfo.get('classes') or ()]
    if is_coco(dataset):  # mmdet numbers them as the file lists them
        listed = coco_categories(dataset.ann_file) or {}
        own = [name for name in listed.values() if name in own] or own
    unknown = [name for name in own if name not in names]
    if unknown or not own:
        raise ValueError(
            f'JoinLabels: classes={list(names)} must name all classes of every source, but one has '
            f'{", ".join(own) or "none"}. Give it metainfo=dict(classes=(…)) with those that count.'
        )
    return [names.index(name) for name in own]


def _by_file(dataset: BaseDataset, names: Sequence[str]) -> dict[str, list[dict]]:
    """Objects by file, with their labels among all classes."""
    dataset.full_init()
    labels = _labels(dataset, names)
    found: dict[str, list[dict]] = {}
    for i in range(len(dataset)):
        entry = dataset.get_data_info(i)
        objects = [dict(o, bbox_label=labels[o['bbox_label']]) for o in entry['instances']]
        found[os.path.realpath(entry['img_path'])] = objects
    return found


def _apart(
    objects: Sequence[Mapping[str, Any]], known: Sequence[Mapping[str, Any]], iou: float
) -> list[dict]:
    """Those that overlap none that is known by ``iou``."""
    sides = [[one['bbox'] for one in side] for side in (objects, known)]
    found, others = (torch.tensor(side, dtype=torch.float64).view(-1, 4) for side in sides)
    near = (iou_matrix(found, others) >= iou).any(1).tolist()
    return [dict(one) for one, over in zip(objects, near, strict=True) if not over]
