"""The generator: shapes, and images on the scale of normalised pixels."""

import pytest
import torch

from mmkd.adapters.generator import Generator


@pytest.mark.parametrize(
    ('size', 'width', 'channels'), [((8, 12), 4, 3), ((16, 16), 6, 1), ((8, 8), 1, 3)]
)
def test_images(size, width, channels):
    torch.manual_seed(0)
    generator = Generator(5, size, width, channels)
    x = generator(torch.randn(16, 5))
    assert x.shape == (16, channels, *size)
    mean, deviation = x.mean((0, 2, 3)), x.std((0, 2, 3), unbiased=False)
    torch.testing.assert_close(mean, torch.zeros(channels), atol=1e-5, rtol=0)
    torch.testing.assert_close(deviation, torch.ones(channels), atol=2e-2, rtol=0)
    assert generator(torch.randn(1, 5)).isfinite().all()
