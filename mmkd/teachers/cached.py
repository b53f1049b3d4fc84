"""Cached: class scores of the training images that were computed before."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmkd.checkpoint import read_file
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
        ValueError: a file without the two; scores that are no probabilities; an image that is not
            in it; a pipeline with random geometry.
    """

    def __init__(self, file: str, key: str = 'img_path') -> None:
        self.file, self.key = file, key
        keys, self.found = _read(file)
        self.table = torch.empty(0)
        self.rows = {name: i for i, name in enumerate(keys)}
        if len(self.rows) != len(keys):
            raise ValueError(f'Cached: {file} names an image twice.')

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

    def scores(self, inputs: Tensor, samples: list, student_pixels: Pixels) -> Tensor:
        found = self.table[[self._row(sample) for sample in samples]]
        if self.by_pixel and found.shape[2:] != inputs.shape[2:]:
            found = nn.functional.interpolate(found, inputs.shape[2:], mode='bilinear')
        return found

    def _row(self, sample: Any) -> int:
        name = sample.metainfo.get(self.key)
        parts = str(name).replace('\\', '/').split('/')
        for start in range(len(parts)):
            row = self.rows.get('/'.join(parts[start:]))
            if row is not None:
                return row
        raise ValueError(
            f'Cached: image {name!r} ({self.key}) is not in {self.file}, which has '
            f'{", ".join(list(self.rows)[:3])}, ….'
        )


def _read(file: str) -> tuple[list[str], Any]:
    path = Path(file).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'Cached: there is no file {file}.')
    held: Any = np.load(path) if path.suffix == '.npz' else read_file(str(path))
    if not isinstance(held, Mapping) or not {'keys', 'scores'} <= set(held):
        raise ValueError(f'Cached: {file} must hold keys and scores, an entry for each image.')
    keys, scores = [str(key) for key in held['keys']], held['scores']
    if not keys or len(keys) != len(scores):
        raise ValueError(f'Cached: {file} has {len(keys)} keys and {len(scores)} rows of scores.')
    return keys, scores
