"""A part of the training set kept away from training, for choices that need data."""

from __future__ import annotations

from mmengine.dataset import BaseDataset
from numpy.random import RandomState

from mmkd.options import check_number
from mmkd.registry import DATASETS


@DATASETS.register_module(name='HoldOut')
def hold_out(dataset: dict, share: float = 0.1, seed: int = 0, held: bool = False) -> BaseDataset:
    """Build ``dataset`` without a random part of its entries, or with that part alone.

    The two have no entry in common, and their number and choice depend on ``share``, ``seed`` and
    the length of the dataset only.

    Args:
        dataset (dict): config of a BaseDataset; entries that its filter or ``indices`` leave out
            are in neither part.
        share (float): of the entries, between 0 and 1.
        seed (int): of the choice.
        held (bool): give the part that is kept away from training.

    Raises:
        ValueError: a wrapper around other datasets; a share that leaves a part empty.
    """
    check_number('hold-out', 'share', share, 0, 1)
    check_number('hold-out', 'seed', seed, 0, 2**32 - 1, whole=True)
    built = DATASETS.build(dataset)
    if not isinstance(built, BaseDataset):
        raise ValueError(
            f'A part can be held out of a BaseDataset, which knows a subset of itself (indices), '
            f'but train_dataloader has a {type(built).__name__}. Let the config name the dataset '
            'itself, without a wrapper.'
        )
    built.full_init()
    order = RandomState(seed).permutation(len(built))
    count = round(share * len(built))
    if not 0 < count < len(built):
        raise ValueError(
            f'hold-out {share} of {len(built)} training images are {count}: one part would be '
            'empty. It is a share between 0 and 1.'
        )
    chosen = order[:count] if held else order[count:]
    built.get_subset_(sorted(chosen.tolist()))
    return built
