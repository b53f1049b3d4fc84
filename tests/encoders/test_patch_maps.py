"""An encoder as a teacher's network: sizes, padding, and its places for taps."""

import torch
from torch import nn

from mmkd.encoders.module_encoder import ModuleEncoder
from mmkd.encoders.patch_maps import PatchMaps
from mmkd.pixels import Pixels
from mmkd.tap import Recorder, Tap


def network(size=None, patch=4):
    encoder = ModuleEncoder(nn.Conv2d(3, 5, patch, patch), 'own', patch=patch)
    return PatchMaps(encoder, size, [127.5] * 3, [50.0] * 3)


def test_pixels_are_the_models_own_and_padded_to_patches():
    pixels = Pixels.of(network())
    assert pixels.swapped and pixels.divisor == 4 and pixels.channels == 3
    assert pixels.mean.tolist() == [127.5] * 3 and pixels.std.tolist() == [50.0] * 3
    assert Pixels.of(network(size=(8, 8))).divisor == 1
    plain = Pixels(None)
    raw = torch.full((1, 3, 6, 8), 255.0)
    seen = pixels.translate(raw, [_sample((6, 8))], plain)
    assert seen.shape == (1, 3, 8, 8)
    assert not seen[:, :, 6:].any() and bool((seen[:, :, :6] == 2.55).all()), 'mean is 0'


def _sample(shape):
    from mmengine.structures import BaseDataElement

    return BaseDataElement(metainfo=dict(img_shape=shape))


def test_maps_and_vector_are_at_their_places():
    model = network()
    x = torch.randn(2, 3, 8, 12)
    taps = [Tap.parse('maps'), Tap.parse('pooled')]
    with Recorder(model, taps).record(x) as side:
        model(x, [], mode='tensor')
    assert side[taps[0]][0].shape == (2, 5, 2, 3) and side[taps[1]][0].shape == (2, 5)


def test_sides_between_two_patches_are_cut():
    """Of the probe alone, whose strides shall be the patch's."""
    model = network()
    x = torch.randn(1, 3, 11, 14)
    assert torch.equal(model(x)[0], model(x[..., :8, :12])[0])


def test_images_are_resized_to_its_size():
    model = network(size=(8, 16))
    assert model(torch.randn(1, 3, 30, 30))[0].shape == (1, 5, 2, 4)
    same = torch.randn(1, 3, 8, 16)
    assert torch.equal(model(same)[0], model.encoder(same)[0][0])
