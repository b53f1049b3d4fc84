"""The images of a config without their labels, all of one size, for makers that change them."""

from __future__ import annotations

import hashlib
from pathlib import PurePath

import torch
from mmengine.registry import DATASETS, DefaultScope
from torch import Tensor

from mmkd.config import calm_dataset, load_config


class Pool:
    """The training images of a config as its validation shows them, without their labels.

    Attributes:
        names (tuple[str, ...]): of the classes, empty where they are not known.
        mark (str): digest of the images' names, by which the pool is known again.

    Args:
        owner (str): for messages.
        config (str): with training and validation data.

    Raises:
        ValueError: it lacks one of them; images of unequal sizes.
    """

    def __init__(self, owner: str, config: str) -> None:
        self.owner = owner
        loaded = load_config(config)
        entry = calm_dataset(loaded, test_mode=True)
        if entry is None:
            raise ValueError(
                f'{owner}: {config} must have a train_dataloader, whose images are meant, and a '
                'val_dataloader, whose pipeline shows them.'
            )
        with DefaultScope.overwrite_default_scope(loaded.get('default_scope') or 'mmengine'):
            self.dataset = DATASETS.build(entry)
        self.names = tuple((getattr(self.dataset, 'metainfo', None) or {}).get('classes') or ())
        infos = (self.dataset.get_data_info(i) for i in range(len(self)))
        paths = [PurePath(str(info.get('img_path', i))) for i, info in enumerate(infos)]
        ends = '\n'.join('/'.join(path.parts[-2:]) for path in paths)
        self.mark = hashlib.sha256(ends.encode()).hexdigest()
        self.shape: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.dataset)

    def image(self, place: int) -> Tensor:
        """(3, H, W) uint8 BGR."""
        return self.load(place)[0]

    def load(self, place: int) -> tuple[Tensor, str]:
        """(3, H, W) uint8 BGR, and the file of the image."""
        data = self.dataset[place]
        image, sample = data['inputs'], data['data_samples']
        shape = tuple(image.shape)
        self.shape = self.shape or shape
        if image.dtype != torch.uint8 or shape != self.shape:
            raise ValueError(
                f'{self.owner}: the pipeline of val_dataloader gives images of {image.dtype} and '
                f'{shape}, and {self.shape} before. Let it resize all to one size, and leave '
                'normalisation to the data preprocessor.'
            )
        return image, str(sample.metainfo.get('img_path', place))
