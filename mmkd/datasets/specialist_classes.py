"""The training set of a specialist: a part of the classes, and a dustbin for all others."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.dataset import BaseDataset
from numpy.random import RandomState

from mmkd.options import check_number
from mmkd.registry import DATASETS

DUSTBIN = 'dustbin'


@DATASETS.register_module(name='SpecialistClasses')
def specialist_classes(
    dataset: dict, classes: Sequence[str], balanced: bool = True, seed: int = 0
) -> BaseDataset:
    """Build ``dataset`` with the labels of ``classes``, in this order, and one for the rest.

    Args:
        dataset (dict): config of a BaseDataset whose entries have ``gt_label``, such as
            ClassFolders.
        classes (list[str]): names in its metainfo, some of them but not all.
        balanced (bool): as many others, drawn at random, as there are images of the classes; False:
            all images.
        seed (int): of that draw.

    Raises:
        ValueError: no class, unknown ones, or all of them; a wrapper, or no labels.
    """
    check_number('SpecialistClasses', 'seed', seed, 0, 2**32 - 1, whole=True)
    built = DATASETS.build(dataset)
    if not isinstance(built, BaseDataset):
        raise ValueError(
            'SpecialistClasses needs a dataset of labelled images, such as ClassFolders, and not a '
            f'wrapper like {type(built).__name__}.'
        )
    built.full_init()
    entries = [built.get_data_info(index) for index in range(len(built))]
    names = list(built.metainfo.get('classes') or ())
    unknown = [name for name in classes if name not in names]
    if unknown or not 0 < len({*classes}) < len(names) or len({*classes}) < len(classes):
        raise ValueError(
            f'SpecialistClasses: classes={list(classes)} must be some of {names}, each once, and '
            'not all.'
        )
    position = {names.index(name): place for place, name in enumerate(classes)}
    own, others = [], []
    for index, entry in enumerate(entries):
        label = entry.get('gt_label')
        if label is None:
            raise ValueError('SpecialistClasses: entries of the dataset have no gt_label.')
        entry['gt_label'] = position.get(label, len(classes))
        entry.pop('sample_idx', None)
        (own if label in position else others).append(index)
    built.data_list = entries
    if built.serialize_data:
        built.data_bytes, built.data_address = built._serialize_data()
    built._metainfo['classes'] = (*classes, DUSTBIN)
    if balanced:
        order = RandomState(seed).permutation(len(others))[: len(own)]
        built.get_subset_(sorted(own + [others[i] for i in order.tolist()]))
    return built
