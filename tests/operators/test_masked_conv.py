"""Convolutions at some places only, and corner pooling, which needs no extension."""

import mmcv.ops
import pytest
import torch

pytestmark = pytest.mark.usefixtures('own')  # mmcv has no compiled ones for a CPU


@pytest.mark.parametrize('padding', [1, (1, 0)])
def test_masked_conv_is_a_convolution_times_the_mask(padding):
    kernel = 3 if padding == 1 else (3, 1)
    layer = mmcv.ops.MaskedConv2d(4, 5, kernel, padding=padding)
    x, mask = torch.randn(1, 4, 7, 6), torch.rand(1, 7, 6) > 0.5
    torch.testing.assert_close(layer(x, mask), layer(x) * mask, rtol=1e-5, atol=1e-6)
    assert not layer(x, torch.zeros_like(mask)).any()


def test_corner_pool():
    x = torch.randn(2, 3, 4, 5)
    for mode, dim, flip in (('left', 3, True), ('bottom', 2, False)):
        wanted = x.flip(dim).cummax(dim)[0].flip(dim) if flip else x.cummax(dim)[0]
        assert torch.equal(mmcv.ops.CornerPool(mode)(x), wanted)
