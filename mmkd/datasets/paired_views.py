"""Other pictures of an image in a data sample: a paired modality, or the image before changes."""

from __future__ import annotations

from logging import WARNING
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.logging import print_log
from mmengine.structures import BaseDataElement

from mmkd.datasets.class_folders import SUFFIXES
from mmkd.options import check_choice
from mmkd.registry import TRANSFORMS
from mmkd.teachers.random_geometry import MOVING

#: parts of names of transforms that move pixels, at random or not
GEOMETRY = {*MOVING, 'flip', 'resize', 'crop', 'pad'} - {'cutout', 'erasing'}
#: pictures that were kept or split off, by name
VIEWS = 'views'
#: those whose channels still lie behind the image's, with their number
JOINED = 'joined_views'


@TRANSFORMS.register_module()
class KeepView(BaseTransform):
    """Keeps the image as it is here, for a teacher: ``teacher=dict(…, view=NAME)``.

    What comes behind may change colours, blur or erase, so that student and teacher see the same
    place, augmented differently. ``RandomGrayscale(prob=1.0)`` behind it makes a student for grey
    images whose teacher sees colours.

    Args:
        name (str): of the view.

    Raises:
        ValueError: before training, a transform behind it that moves pixels.
    """

    def __init__(self, name: str = 'clean') -> None:
        self.name = name

    def transform(self, results: dict) -> dict:
        """The sample with a copy of ``img`` under ``views``."""
        views = {**results.get(VIEWS, {}), self.name: results['img'].copy()}
        return {**results, VIEWS: views}

    def check_dataset(self, dataset: Any) -> None:
        """Before training: nothing behind it may move pixels, and it must be packed."""
        check_behind(self, dataset)


@TRANSFORMS.register_module()
class LoadView(BaseTransform):
    """Loads the picture that another sensor took of the same place, for a teacher.

    Its channels are joined to those of the image, so that every transform that moves pixels moves
    both alike, until :class:`SplitViews`. Both files have the same path below their folders.

    Args:
        name (str): of the view.
        images (str): folder of the student's images.
        folder (str): of the teacher's.
        suffix (str | None): of its files; None: that of the image, or any of an image.
        resize (bool): bring a partner of another size to that of its image, by bilinear
            interpolation; both must show the same field of view.
        missing (str): ``'error'``, or ``'skip'``: training leaves out images without a partner, and
            the log says how many.

    Raises:
        FileNotFoundError: before training, an image without a partner.
        ValueError: a partner of another size; no :class:`SplitViews` in the pipeline.
    """

    def __init__(
        self,
        name: str,
        images: str,
        folder: str,
        suffix: str | None = None,
        resize: bool = False,
        missing: str = 'error',
    ) -> None:
        self.name, self.suffix, self.resize = name, suffix, resize
        self.missing = check_choice('LoadView', 'missing', missing, ('error', 'skip'))
        self.images, self.folder = Path(images), Path(folder)

    def partner(self, path: str) -> Path:
        """The file that belongs to an image; FileNotFoundError for none."""
        try:
            below = Path(path).resolve().relative_to(self.images.resolve())
        except ValueError:
            raise FileNotFoundError(
                f'LoadView: {path} is not in images={self.images}, so it is not known which file '
                f'in {self.folder} belongs to it.'
            ) from None
        wanted = self.folder / below
        endings = [self.suffix] if self.suffix else [below.suffix, *sorted(SUFFIXES)]
        for ending in endings:
            if wanted.with_suffix(ending).is_file():
                return wanted.with_suffix(ending)
        raise FileNotFoundError(
            f'LoadView: there is no {wanted.with_suffix(self.suffix or ".*")}, which view '
            f'{self.name!r} of {path} would be.'
        )

    def transform(self, results: dict) -> dict | None:
        """``img`` (H, W, C) becomes (H, W, C + C'); None where a partner is missing."""
        try:
            partner = self.partner(results['img_path'])
        except FileNotFoundError:
            if self.missing == 'skip':
                return None  # the dataset draws another image
            raise
        other = mmcv.imread(str(partner), flag='unchanged')
        if other is None:
            raise ValueError(f'LoadView: {partner} is damaged or no image.')
        if self.resize:
            other = mmcv.imresize(other, results['img'].shape[1::-1])
        image, other = (x[..., None] if x.ndim == 2 else x for x in (results['img'], other))
        if other.shape[:2] != image.shape[:2]:
            raise ValueError(
                f'LoadView: {partner} has {other.shape[0]} x {other.shape[1]} pixels and '
                f'{results["img_path"]} {image.shape[0]} x {image.shape[1]}. If both show the same '
                'field of view, set resize=True.'
            )
        joined = [*results.get(JOINED, []), (self.name, other.shape[2])]
        both = np.concatenate((image, other.astype(image.dtype)), 2)
        return {**results, 'img': both, JOINED: joined}

    def check_dataset(self, dataset: Any) -> None:
        """Before training: every image has a partner, and both are split again and packed."""
        transforms = [type(t).__name__ for t in dataset.pipeline.transforms]
        if 'SplitViews' not in transforms:
            raise ValueError(
                'LoadView joins two pictures, but nothing splits them again. Put mmkd.SplitViews '
                'behind the last transform that moves pixels.'
            )
        missing = []
        for index in range(len(dataset)):
            try:
                self.partner(dataset.get_data_info(index)['img_path'])
            except FileNotFoundError as error:
                if self.missing == 'error' or getattr(dataset, 'test_mode', False):
                    raise
                missing.append(str(error))
        if len(missing) == len(dataset):
            raise FileNotFoundError(f'LoadView: no image has a partner. {missing[0]}')
        if missing:
            print_log(
                f'LoadView: {len(missing)} of {len(dataset)} images have no view {self.name!r} and '
                'are left out',
                'current',
                WARNING,
            )


@TRANSFORMS.register_module()
class SplitViews(BaseTransform):
    """Splits what :class:`LoadView` joined; behind it, transforms change the image alone.

    Raises:
        ValueError: before training, a transform behind it that moves pixels.
    """

    def transform(self, results: dict) -> dict:
        """``img`` (H, W, C) without the channels of the views, which are under ``views``."""
        views, image = dict(results.get(VIEWS, {})), results['img']
        for name, channels in reversed(results.get(JOINED, [])):
            views[name] = np.ascontiguousarray(image[..., -channels:])
            image = image[..., :-channels]
        return {**results, 'img': np.ascontiguousarray(image), VIEWS: views, JOINED: []}

    def check_dataset(self, dataset: Any) -> None:
        """Before training: nothing behind it may move pixels, and they must be packed."""
        check_behind(self, dataset)


@TRANSFORMS.register_module()
class PackViews(BaseTransform):
    """The last transform of a pipeline with views: packs the sample, and the views into it.

    Args:
        pack (dict): the transform that packs it otherwise, such as ``dict(type='PackDetInputs')``.
    """

    def __init__(self, pack: dict) -> None:
        self.pack = TRANSFORMS.build(pack)

    def transform(self, results: dict) -> dict:
        """Inputs and ``data_samples``, whose ``views`` have a tensor (C, H, W) of each."""
        packed = self.pack(results)
        views = BaseDataElement()
        for name, image in results.get(VIEWS, {}).items():
            image = image[..., None] if image.ndim == 2 else image
            picture = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
            views.set_field(picture, name)
        packed['data_samples'].set_field(views, VIEWS, dtype=BaseDataElement)
        return packed


def check_behind(transform: BaseTransform, dataset: Any) -> None:
    """Refuse transforms that would move the image and not its views; ValueError."""
    transforms = dataset.pipeline.transforms
    place = next(i for i, one in enumerate(transforms) if one is transform)
    behind = [type(one).__name__ for one in transforms[place + 1 :]]
    wrong = [name for name in behind if any(part in name.lower() for part in GEOMETRY)]
    owner = type(transform).__name__
    if wrong:
        raise ValueError(
            f'{owner}: {", ".join(wrong)} behind it would move pixels of the image and not of its '
            'view. Put it in front.'
        )
    if 'PackViews' not in behind:
        raise ValueError(
            f'{owner}: end the pipeline with mmkd.PackViews(pack=…), which packs the view.'
        )
