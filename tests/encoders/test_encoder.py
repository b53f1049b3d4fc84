"""Tokens as maps, and which layers are meant."""

import pytest
import torch

from mmkd.encoders import build_encoder
from mmkd.encoders.encoder import as_map, positions, summary


def test_tokens_become_a_map_row_by_row():
    tokens = torch.arange(8.0).view(1, 8, 1)
    patches, front = as_map('it', tokens, (2, 3))
    assert patches.tolist() == [[[[2, 3, 4], [5, 6, 7]]]]
    assert front.flatten().tolist() == [0, 1]
    assert summary(patches, front).item() == 0, 'the class token comes first'
    patches, front = as_map('it', tokens[:, 2:], (2, 3))
    assert front.shape == (1, 0, 1) and summary(patches, front).item() == 4.5


def test_maps_stay_in_whatever_order_their_channels_are():
    x = torch.randn(2, 3, 4, 5)
    assert as_map('it', x, (4, 5))[0] is x
    assert torch.equal(as_map('it', x.permute(0, 2, 3, 1), (4, 5))[0], x)


def test_as_many_tokens_as_fit_no_grid():
    for count in (5, 200):
        with pytest.raises(ValueError, match=f'it gives {count} tokens for 2 x 3 patches'):
            as_map('it', torch.zeros(1, count, 4), (2, 3))


def test_layers_from_either_end():
    assert positions('it', (-1, 0, -3), 4) == [3, 0, 1]
    with pytest.raises(ValueError, match='it has 4 layers, from 0 to 3 or -4 to -1, but layer 4'):
        positions('it', (0, 4), 4)


@pytest.mark.parametrize(
    ('model', 'error', 'words'),
    [
        (3, TypeError, "must be 'timm/NAME'"),
        ('vit_base', ValueError, 'Write timm/vit_base, transformers/vit_base, or'),
        ('timm/', ValueError, 'it is not known which library'),
    ],
)
def test_no_library_is_named(model, error, words):
    with pytest.raises(error, match=words):
        build_encoder(model, None)
