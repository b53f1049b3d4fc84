"""LowRank: a trained network whose convolutions are made of few dominant kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from mmkd.chain import Maker, Product
from mmkd.edits.dominant_kernels import DominantKernels, decompose, rank_of
from mmkd.engine.console.screen import current_screen
from mmkd.makers.networks import load_for_reshaping
from mmkd.makers.reshaped import write_reshaped
from mmkd.options import check_number
from mmkd.registry import MAKERS


@MAKERS.register_module()
class LowRank(Maker):
    """A trained network with R kernels for each channel of its convolutions, before it is tuned.

    Wang et al., ACCV 2016 (dominant convolutional kernels), by singular value decomposition of the
    kernels that read each channel. ``low_rank.py`` builds the network with the edit
    ``mmkd.DominantKernels``, ``low_rank.pth`` has its weights; BatchNorms and all other layers are
    those of before. The paper's second half is the method ``PreRegression``.

    Args:
        rank (int): R; a 3 x 3 convolution of 64 channels costs 12.7 % for each.
        only, skip (list[str]): see :class:`~mmkd.edits.dominant_kernels.DominantKernels`.
        most (float): share of a layer's weights, by their norm, that may be lost.

    Raises:
        ValueError: options out of range; not one network; a layer that would lose more.
    """

    def __init__(
        self,
        rank: int = 2,
        only: Sequence[str] = ('backbone',),
        skip: Sequence[str] = (),
        most: float = 0.5,
    ) -> None:
        self.edit = DominantKernels(rank, only, skip)
        self.most = check_number('LowRank', 'most', most, above=0, most=1)

    @torch.no_grad()
    def __call__(self, given: Mapping[str, Product], work_dir: str) -> Product:
        config, model = load_for_reshaping('LowRank', given)
        state, losses = model.state_dict(), {}
        for name, conv in self.edit.chosen(model).items():
            weight = state.pop(f'{name}.weight')
            spatial, mix, lost = decompose(weight, rank_of(conv, self.edit.rank))
            state |= {f'{name}.spatial.weight': spatial, f'{name}.mix.weight': mix}
            if conv.bias is not None:
                state[f'{name}.mix.bias'] = state.pop(f'{name}.bias')
            losses[name] = lost
        worst = max(losses, key=lambda name: losses[name])
        if losses[worst] > self.most:
            raise ValueError(
                f'LowRank: {worst} would lose {losses[worst]:.1%} of its weights (by their norm), '
                f'more than most={self.most:g}, with rank={self.edit.rank}. Take a larger rank, '
                'skip it, or allow more.'
            )
        choice = self.edit.choice
        entry = dict(type='mmkd.DominantKernels', rank=self.edit.rank, only=choice.only)
        edits = [dict(entry, skip=choice.skip) if choice.skip else entry]
        product = write_reshaped(work_dir, 'low_rank', config, edits, state)
        mean = sum(losses.values()) / len(losses)
        current_screen().say(
            f'LowRank: {len(losses)} convolutions of rank {self.edit.rank} lose {mean:.1%} of '
            f'their weights on average, {worst} most with {losses[worst]:.1%}.'
        )
        return product
