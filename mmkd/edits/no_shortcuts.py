"""NoShortcuts: a ResNet whose blocks have no identity shortcuts."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mmkd.edits.choosing import Choice
from mmkd.registry import MODELS


class Nothing(nn.Module):
    """A shortcut that carries nothing."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> 0, a number."""
        return x.new_zeros(())


@MODELS.register_module()
class NoShortcuts:
    """Take the identity shortcuts out of residual blocks, as an edit of the student.

    Li et al., NeurIPS 2020 ("Residual distillation"): the plain network needs no memory for them,
    and learns with :class:`~mmkd.methods.resdist.ResDist`. Shortcuts with a convolution stay, as in
    the authors' code. Parameters keep their names.

    Args:
        only, skip (list[str]): names of modules whose blocks alone are changed, or stay.

    Raises:
        ValueError: no such module; no block with an identity shortcut.
    """

    claims = 'shapes'

    def __init__(self, only: Sequence[str] = (), skip: Sequence[str] = ()) -> None:
        self.choice = Choice('NoShortcuts', only, skip)
        self.count = 0

    def __call__(self, model: nn.Module) -> nn.Module:
        """The model itself, changed."""
        self.choice.check(model)
        blocks = [
            block
            for name, block in model.named_modules()
            if hasattr(block, 'conv2') and getattr(block, 'downsample', block) is None
            if self.choice.has(name)
        ]
        if not blocks:
            raise ValueError(
                f'NoShortcuts: no residual block of {type(model).__name__} has an identity '
                f'shortcut with only={self.choice.only} and skip={self.choice.skip}.'
            )
        for block in blocks:
            block.downsample = Nothing()
        self.count = len(blocks)
        return model

    def describe(self) -> str:
        """How many blocks."""
        return f'{self.count} identity shortcuts taken out'
