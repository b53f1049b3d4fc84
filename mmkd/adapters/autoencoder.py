"""An autoencoder of feature maps, with a coarser and narrower code."""

from __future__ import annotations

from torch import Tensor, nn

from mmkd.functional.resize import resize


class AutoEncoder(nn.Module):
    """Three convolutions to a code, three transposed ones back: (N, C, H, W) -> (N, latent, h, w).

    Args:
        channels, latent (int): widths of map and code.
        shrink (int): H / h, a power of two up to 8.
    """

    def __init__(self, channels: int, latent: int, shrink: int) -> None:
        super().__init__()
        strides = [2 if shrink >= 2 ** (k + 1) else 1 for k in range(3)]
        widths = [channels, *(max((channels + latent) // 2, latent),) * 2, latent]
        self.encoder, self.decoder = nn.Sequential(), nn.Sequential()
        for a, b, stride in zip(widths, widths[1:], strides, strict=False):
            self.encoder.extend([nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b)])
            self.encoder.append(nn.ReLU())
        for k, stride in enumerate(reversed(strides)):
            a, b = widths[3 - k], widths[2 - k]
            kernel = 4 if stride == 2 else 3
            self.decoder.append(nn.ConvTranspose2d(a, b, kernel, stride, 1, bias=k == 2))
            if k < 2:
                self.decoder.extend([nn.BatchNorm2d(b), nn.ReLU()])

    def reconstruct(self, x: Tensor, code: Tensor) -> Tensor:
        """Reconstruction of x from its code, at the size of x."""
        found = self.decoder(code)
        return resize(found, x.shape[2:])
