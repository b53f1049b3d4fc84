"""Images of a folder or of a config, and what a network makes of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, DefaultScope
from torch import Tensor, nn

from mmkd.config import dataset_leaves, load_config
from mmkd.datasets.class_folders import images_below
from mmkd.makers.networks import on_gpu
from mmkd.pixels import Pixels
from mmkd.structures import ClassSample
from mmkd.tap import Side, Tap
from mmkd.teacher import Teacher

BATCH = 32


def files_of(source: str, most: int) -> list[str]:
    """At most so many image files, drawn evenly from all in their order.

    Args:
        source (str): a folder, at any depth and without hidden files, or a config with a training
            set.

    Raises:
        FileNotFoundError: there is neither.
    """
    if source.endswith('.py') or '::' in source:
        files = [entry['img_path'] for entry in entries_of(load_config(source))]
    elif Path(source).is_dir():
        files = sorted(map(str, images_below(Path(source))))
    else:
        raise FileNotFoundError(f'There is neither a folder of images nor a config {source!r}.')
    return spread(files, most)


def entries_of(config: Any) -> list[dict]:
    """What the training set of a config lists, by image."""
    dataset = training_set(config, pipeline=[])
    return [dataset.get_data_info(i) for i in range(len(dataset))]


def training_batches(
    config: Any, model: nn.Module, most: int, size: int | None = None
) -> Iterator[tuple[Tensor, list]]:
    """Training images of a config as its model sees them, with their samples.

    Args:
        model (nn.Module): its data preprocessor makes the batches.
        most (int): images, drawn evenly from all in their order.
        size (int | None): images of a batch, of which the last may have fewer; None: as many as in
            training.
    """
    size = size or int(config.train_dataloader.get('batch_size') or 1)
    dataset = training_set(config)
    chosen = spread(range(len(dataset)), most)
    for start in range(0, len(chosen), size):
        part = pseudo_collate([dataset[i] for i in chosen[start : start + size]])
        data = model.data_preprocessor(part, True)  # type: ignore[operator]
        yield data['inputs'], data['data_samples']


def training_set(config: Any, **changes: Any) -> Any:
    """That of a config, built; ``changes`` are those of each dataset inside wrappers."""
    with DefaultScope.overwrite_default_scope(config.get('default_scope') or 'mmengine'):
        entry = copy.deepcopy(config.train_dataloader.dataset)
        for leaf in dataset_leaves(entry):
            leaf.update(changes)
        return DATASETS.build(entry)


def spread(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many of them, evenly."""
    count = min(most, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def batches(files: Sequence[str], pixels: Pixels, size: tuple[int, int]) -> Iterator[Tensor]:
    """Images (N, C, H, W) scaled to one size and normalised as a model wants them.

    Raises:
        ValueError: a file that cannot be decoded.
    """
    for first in range(0, len(files), BATCH):
        read = [_image(file, pixels.channels) for file in files[first : first + BATCH]]
        scaled = [mmcv.imresize(x, size[::-1], interpolation='area') for x in read]
        stacked = torch.from_numpy(np.stack(scaled)).view(-1, *size, pixels.channels)
        stacked = stacked.permute(0, 3, 1, 2).float()
        stacked = stacked.flip(1) if pixels.swapped else stacked
        mean, std = (x.view(1, -1, 1, 1) for x in (pixels.mean, pixels.std))
        yield (stacked - mean.cpu()) / std.cpu()


def _image(file: str, channels: int) -> np.ndarray:
    """In BGR (H, W, 3), or grey (H, W) for one channel."""
    image = mmcv.imread(file, 'grayscale' if channels == 1 else 'color')  # None: not decoded
    if image is None:
        raise ValueError(f'{file} is damaged or no image. Repair or remove it.')
    return image


def seen_by(teacher: Teacher, images: Tensor, files: Sequence[str] = ()) -> Side:
    """What the taps of a classifier show of images (N, C, H, W), uint8, BGR or grey.

    Args:
        files (Sequence[str]): of the images, where a teacher may know them by name.
    """
    known = [dict(img_path=file) for file in files] or [{}] * len(images)
    size = tuple(images.shape[2:])
    samples = [ClassSample(metainfo=dict(img_shape=size, **one)) for one in known]
    device = next(teacher.model.parameters()).device
    return teacher(images.float().to(device), samples, Pixels(None, images.shape[1]))


@torch.no_grad()
def features_of(teacher: Teacher, tap: str, files: Sequence[str], size: tuple[int, int]) -> Tensor:
    """The last map at a tap, averaged over places: (N, C), in the order of the files."""
    taps = [Tap.parse(tap)]
    on_gpu(teacher).set_taps(taps)
    device = next(teacher.model.parameters()).device
    found = []
    for inputs in batches(files, teacher.pixels, size):
        side = teacher(inputs.to(device), [], teacher.pixels)
        last = side[taps[0]][-1]
        found.append(last.flatten(2).mean(2).cpu() if last.dim() > 2 else last.cpu())
    return torch.cat(found)
