"""A generator of small images, as DAFL, DFAD and ZSKT have it."""

from __future__ import annotations

from torch import Tensor, nn

#: sides of an image must be multiples of it
STEP = 4


class Generator(nn.Module):
    """Noise z (N, Z) -> images (N, C, H, W) of mean 0 and variance 1 in each channel of a batch.

    A DCGAN with interpolation: a linear layer to a map of a quarter of the size, then twice twofold
    enlargement (nearest) and a convolution 3x3, with BatchNorm and LeakyReLU 0.2; a last
    convolution, tanh, and a BatchNorm without parameters, which brings the images to the scale of
    normalised pixels.

    Args:
        latent (int): Z.
        size (tuple[int, int]): (H, W), multiples of :data:`STEP`.
        width (int): channels of the first two maps; the third has half as many, at least one.
        channels (int): C.
    """

    def __init__(
        self, latent: int, size: tuple[int, int], width: int = 128, channels: int = 3
    ) -> None:
        super().__init__()
        self.latent, self.start = latent, (width, size[0] // STEP, size[1] // STEP)
        half = max(width // 2, 1)
        self.fc = nn.Linear(latent, width * self.start[1] * self.start[2])
        self.layers = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(width, half, 3, padding=1),
            nn.BatchNorm2d(half),
            nn.LeakyReLU(0.2),
            nn.Conv2d(half, channels, 3, padding=1),
            nn.Tanh(),
            nn.BatchNorm2d(channels, affine=False),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(self.fc(z).view(-1, *self.start))
