"""Images sorted into one folder per class, the layout of ImageNet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset

from mmkd.registry import DATASETS

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp')


def images_below(folder: Path) -> Iterator[Path]:
    """Image files at any depth of a folder, through links as well.

    Names that begin with a dot do not count.

    Raises:
        ValueError: a link back, to a folder that it lies in.
    """
    for place, subfolders, files in os.walk(folder, followlinks=True):
        subfolders[:] = [sub for sub in subfolders if not sub.startswith('.')]
        for sub in subfolders:
            _check_link(os.path.join(place, sub))
        for file in files:
            if file.lower().endswith(SUFFIXES) and not file.startswith('.'):
                yield Path(place, file)


@DATASETS.register_module()
class ClassFolders(BaseDataset):
    """``data_root/train/<class>/*.jpg``, any depth below the class folder, suffix in any case.

    Classes are the folder names in alphabetical order, or ``metainfo=dict(classes=(...))`` in the
    order given, which may leave folders out. Names that begin with a dot do not count. Grey-scale,
    palette, CMYK and transparent files become three channels when they are loaded
    (``LoadImageFromFile`` with its ``color_type='color'``); what cannot be decoded is skipped in
    training, with a warning, and an error in testing.

    Args:
        data_prefix (dict): ``dict(img_path='train')``, the folder of the class folders.
        **kwargs: of :class:`mmengine.dataset.BaseDataset`.

    Raises:
        FileNotFoundError: the folder, or that of a class asked for, does not exist.
        ValueError: no class folders, one without images, or one that a link leads out of.
    """

    def __init__(self, data_prefix: dict | None = None, **kwargs: Any) -> None:
        super().__init__(data_prefix=dict(img_path='train') | dict(data_prefix or {}), **kwargs)

    def load_data_list(self) -> list[dict]:
        """One entry per image: ``img_path`` and ``gt_label``."""
        root = Path(self.data_prefix['img_path'])
        classes = list(self._metainfo.get('classes') or _class_folders(root))
        self._metainfo['classes'] = tuple(classes)
        entries = []
        for label, name in enumerate(classes):
            images = _images(root, name)
            if not images:
                raise ValueError(
                    f'ClassFolders: the folder of class {name!r}, {root / name}, has no image '
                    f'({", ".join(SUFFIXES)}). Fill it or remove it; a class that only one split '
                    'has would move the labels of the others.'
                )
            entries += [dict(img_path=path, gt_label=label) for path in images]
        return entries

    def get_cat_ids(self, idx: int) -> list[int]:
        """The class of an image, for ``ClassBalancedDataset``."""
        return [self.get_data_info(idx)['gt_label']]


def _class_folders(root: Path) -> list[str]:
    """Names of the class folders in alphabetical order."""
    if not root.is_dir():
        raise FileNotFoundError(
            f'ClassFolders: there is no folder {root.absolute()}; set data_root and data_prefix.'
        )
    names = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith('.'))
    if not names:
        raise ValueError(
            f'ClassFolders: {root.absolute()} has no folders of classes. Images lie in one folder '
            'per class, <split>/<class>/*.jpg.'
        )
    return names


def _images(root: Path, name: str) -> list[str]:
    """Paths of the images of a class in alphabetical order."""
    if not (root / name).is_dir():
        raise FileNotFoundError(
            f'ClassFolders: class {name!r} of metainfo has no folder in {root.absolute()}.'
        )
    return sorted(map(str, images_below(root / name)))


def _check_link(folder: str) -> None:
    """Stop at a link to a parent folder, which contains the images of all classes again."""
    target, home = (os.path.realpath(path) for path in (folder, os.path.dirname(folder)))
    if os.path.islink(folder) and os.path.commonpath((target, home)) == target:
        raise ValueError(f'{folder} is a link to {target}, the folder that it lies in. Remove it.')
