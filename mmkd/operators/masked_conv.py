"""The two halves of a convolution that is computed at some places only."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def masked_im2col_forward(
    im: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    col: Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """Write the patch around each place as a column.

    Args:
        im: ``(1, C, H, W)``.
        mask_h_idx: ``(P,)`` rows of the places in the output.
        mask_w_idx: ``(P,)`` their columns.
        col: ``(C * kernel_h * kernel_w, P)``. Written.
        kernel_h: Height of a patch.
        kernel_w: Width of a patch.
        pad_h: Zeros above and below.
        pad_w: Zeros left and right.
    """
    padded = F.pad(im[0], (pad_w, pad_w, pad_h, pad_h))
    patches = padded.unfold(1, kernel_h, 1).unfold(2, kernel_w, 1)  # C, rows, columns, kernel
    col.copy_(patches[:, mask_h_idx, mask_w_idx].permute(0, 2, 3, 1).reshape_as(col))


def masked_col2im_forward(
    col: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    im: Tensor,
    height: int,
    width: int,
    channels: int,
) -> None:
    """Write ``(C, P)`` columns to their places in ``(1, C, height, width)``."""
    im[0, :, mask_h_idx, mask_w_idx] = col
