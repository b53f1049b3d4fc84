"""An encoder as a network that a teacher can be: its own pixels, size and places for taps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.model import ImgDataPreprocessor
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.encoders.encoder import Encoder


class PatchMaps(nn.Module):
    """Images of a batch through an encoder; its maps are at ``maps``, its vector at ``pooled``.

    Args:
        encoder (Encoder): the network.
        size (tuple[int, int] | None): height and width to which images are resized; None: they keep
            theirs, and are padded with the mean to multiples of the patch.
        mean, std (Sequence[float]): of RGB from 0 to 255.
    """

    def __init__(
        self,
        encoder: Encoder,
        size: tuple[int, int] | None,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.data_preprocessor = ImgDataPreprocessor(
            mean=mean, std=std, bgr_to_rgb=True, pad_size_divisor=1 if size else encoder.patch
        )
        self.encoder, self.size = encoder, size
        self.maps, self.pooled = nn.Identity(), nn.Identity()

    def forward(self, inputs: Tensor, samples: Any = None, mode: str = 'tensor') -> tuple:
        """(N, 3, H, W) -> maps (N, D, h, w).

        Sides that are no multiples of the patch are cut: those of a batch were padded before.
        """
        if self.size:
            inputs = F.interpolate(inputs, self.size, mode='bilinear', antialias=True)
        h, w = (side - side % self.encoder.patch for side in inputs.shape[2:])
        maps, pooled = self.encoder(inputs[..., :h, :w])
        self.pooled(pooled)
        return self.maps(tuple(maps))
