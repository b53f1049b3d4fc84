"""Cached: class scores of the training images that were computed before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor, nn

from mmkd.checkpoint import read_file
from mmkd.names import no_file
from mmkd.pixels import Pixels
from mmkd.teachers.black_box import BlackBox, as_logits
from mmkd.teachers.kinds import kind
from mmkd.teachers.random_geometry import random_geometry


@kind
class Cached(BlackBox):
    """Class scores of every training image, computed before and read from a file.

    They are right only while an image is what the scores were computed for, so random changes of
    geometry in the training pipeline are refused; flips are allowed for scores of whole images.

    Args:
        file (str): ``.npz`` or ``.pt`` with ``keys`` (the images' names) and ``scores``,
            probabilities (images, K) or (images, K, h, w).
        key (str): entry of the data samples' meta information that holds the name; a key of the
            file may be its end, such as ``cat/1.png`` of ``data/train/cat/1.png``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file without the two; scores that are no probabilities; a training image that
            is not in it; a pipeline with random geometry.
    """

    def __init__(self, file: str, key: str = 'img_path') -> None:
        self.file, self.key = file, key
        held = read_scores('Cached', file)
        keys, self.found = held['keys'], held['scores']
        self.table = torch.empty(0)
        self.rows = {name: i for i, name in enumerate(keys)}

    @property
    def loaded(self) -> str:
        return f'scores of {len(self.rows)} images in {self.file}'

    def meet(self, student: nn.Module) -> None:
        super().meet(student)
        count = len(self.rows)
        self.table = as_logits(
            f'Cached {self.file}', self.found, count, self.classes, self.by_pixel, hard=False
        )

    def check(self, runner: Any) -> None:
        found = random_geometry(runner.train_dataloader.dataset, flips=not self.by_pixel)
        if found:
            raise ValueError(
                f'Cached: the training pipeline has {", ".join(found)}, which shows other images '
                'than those whose scores are in the file. Take a fixed Resize, or a teacher that '
                'runs in training.'
            )
        names = names_of(runner.train_dataloader.dataset, self.key)
        missing = [name for name in names if self._at(name) < 0]
        if missing:
            count = f' {len(missing)} of {len(names)} training images are missing.'
            raise ValueError(self._absent(missing[0]) + count)

    def scores(self, inputs: Tensor, samples: list, student_pixels: Pixels) -> Tensor:
        found = self.table[[self._row(sample) for sample in samples]]
        if self.by_pixel and found.shape[2:] != inputs.shape[2:]:
            found = over_images(found, inputs.shape[2:], samples)
        return found

    def _row(self, sample: Any) -> int:
        if self.key not in sample.metainfo:
            raise ValueError(
                f'Cached: key={self.key!r} is not in the meta information of the samples, which '
                f'has {", ".join(sample.metainfo_keys())}.'
            )
        name = sample.metainfo[self.key]
        row = self._at(name)
        if row < 0:
            raise ValueError(self._absent(name))
        return row

    def _at(self, name: Any) -> int:
        """Row of an image, by the longest end of its name that the file has; -1 for none."""
        return next((self.rows[end] for end in path_ends(str(name)) if end in self.rows), -1)

    def _absent(self, name: Any) -> str:
        return (
            f'Cached: image {name!r} ({self.key}) is not in {self.file}, which has '
            f'{", ".join(list(self.rows)[:3])}, ….'
        )


def over_images(scores: Tensor, size: Sequence[int], samples: list) -> Tensor:
    """Score maps (N, K, h, w) scaled to their images; padding (right, below) has none: zeros.

    Args:
        scores (Tensor): of whole images.
        size (Sequence[int]): H and W of the batch.
        samples (list): whose ``img_shape`` is the image's share of it; without, all of it.
    """
    full = scores.new_zeros(*scores.shape[:2], *size)
    for own, row, sample in zip(full, scores, samples, strict=True):
        h, w = sample.metainfo.get('img_shape', size)[:2]
        own[:, :h, :w] = nn.functional.interpolate(row[None], (h, w), mode='bilinear')[0]
    return full


def path_ends(path: str) -> Iterator[str]:
    """Its ends, the longest first: of ``a/b/c.png`` itself, ``b/c.png`` and ``c.png``."""
    parts = path.replace('\\', '/').split('/')
    return ('/'.join(parts[start:]) for start in range(len(parts)))


def names_of(dataset: Any, key: str) -> list[Any]:
    """What the samples of a dataset are called, as far as that is known without loading them."""
    if not hasattr(dataset, 'get_data_info'):
        return []
    infos = (dataset.get_data_info(i) for i in range(len(dataset)))
    return [info[key] for info in infos if key in info]


def read_scores(owner: str, file: str) -> dict[str, Any]:
    """What a file of scores by image holds: ``keys``, names of images, ``scores`` and the rest.

    Args:
        owner (str): for messages.

    Raises:
        FileNotFoundError: no such file.
        ValueError: one without the two, or that names an image twice.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'{owner}: {no_file(file, ".npz", ".pt")}')
    held: Any = _arrays(owner, path) if path.suffix == '.npz' else read_file(str(path), 'cpu')
    good = isinstance(held, Mapping) and {'keys', 'scores'} <= set(held)
    if not good or not all(getattr(held[k], 'ndim', 1) for k in ('keys', 'scores')):
        raise ValueError(f'{owner}: {file} must hold keys and scores, an entry for each image.')
    keys = [str(key).replace('\\', '/').removeprefix('./') for key in held['keys']]
    scores = held['scores']
    if not keys or len(keys) != len(scores):
        raise ValueError(f'{owner}: {file} has {len(keys)} keys and {len(scores)} rows of scores.')
    if len({*keys}) != len(keys):
        raise ValueError(f'{owner}: {file} names an image twice.')
    return {**held, 'keys': keys}


def _arrays(owner: str, path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path) as file:
            return dict(file)
    except (OSError, EOFError, ValueError, BadZipFile) as error:
        raise ValueError(
            f'{owner}: {path} cannot be read ({error}). Write it with np.savez, keys as text: '
            'keys=np.array(names, dtype=str).'
        ) from None
