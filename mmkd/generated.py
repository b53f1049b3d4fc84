"""Batches that an objective generates in place of the data's, where there are no images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from mmkd.datasets.protection import leaves
from mmkd.schedule import Progress


def makers_of(objectives: Mapping[str, Any]) -> list[str]:
    """Names of the objectives that generate images."""
    return [name for name, one in objectives.items() if one.makes_images]


def check_makers(objectives: Mapping[str, Any], tasks: bool, peers: Iterable[str]) -> None:
    """Refuse, at build, what needs labels or images that are not there.

    Args:
        tasks (bool): the student has its own losses.
        peers (Iterable[str]): names of peers, which have theirs.

    Raises:
        ValueError: several objectives generate the batch; losses that need labels.
    """
    makers = makers_of(objectives)
    if not makers:
        return
    if len(makers) > 1:
        raise ValueError(
            f'objectives {", ".join(makers)} each generate the images of a step; one at most can.'
        )
    if tasks:
        raise ValueError(
            f"objective '{makers[0]}' generates images, which have no labels, but the student has "
            'its own losses. Train without those: task_weight=None.'
        )
    if peers := list(peers):
        raise ValueError(
            f"objective '{makers[0]}' generates images, which have no labels, but the peers "
            f'{", ".join(peers)} have losses of their own. Leave them out.'
        )


def generate(
    objectives: Mapping[str, Any], inputs: Tensor, samples: Any, progress: Progress
) -> tuple[Tensor, Any]:
    """The batch of a step: what an objective generates, else that of the data as it is.

    Args:
        inputs (Tensor): (N, …); of generated images N is all that counts.
    """
    for name in makers_of(objectives):
        return objectives[name].images(inputs, progress)
    return inputs, samples


def check_images(objectives: Mapping[str, Any], dataset: Any) -> None:
    """Images are either generated or those of the data.

    Raises:
        ValueError: a data set without images that nobody generates, or images that nobody sees.
    """
    none = [getattr(one, 'no_images', False) for one in leaves(dataset)]
    makers = makers_of(objectives)
    if any(none) and not makers:
        raise ValueError(
            'mmkd.NoImages has no images to learn from, and no objective generates some. Take a '
            'data set with images, or an objective such as ZSKT.'
        )
    if makers and not all(none):
        raise ValueError(
            f"objective '{makers[0]}' generates images, so that those of the training set would be "
            "read in vain. Take dict(type='mmkd.NoImages', length=…), or a method that learns from "
            'images without labels, such as KD: it learns more from them.'
        )
