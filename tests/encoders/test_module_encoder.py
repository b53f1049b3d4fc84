"""Modules and functions of files as encoders: what they may be, and what they may return."""

import pytest
import torch
from torch import nn

from mmkd.encoders.module_encoder import ModuleEncoder

SOURCE = """
from torch import nn

class Made(nn.Conv2d):
    patch_size = 4

    def __init__(self):
        super().__init__(3, 5, 4, 4)

def make(width=6):
    return nn.Conv2d(3, width, 8, 8)

def images(x):
    return x[:, :, ::2, ::2]

module, number = make(7), 3
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(SOURCE)
    return str(path)


@pytest.mark.parametrize(
    ('name', 'options', 'shape'),
    [
        ('Made', {}, (2, 5, 4, 6)),
        ('make', dict(patch=8), (2, 6, 2, 3)),
        ('module', {}, (2, 7, 2, 3)),
        ('images', {}, (2, 3, 8, 12)),
    ],
)
def test_what_a_file_may_name(file, name, options, shape):
    encoder = ModuleEncoder(f'{file}:{name}', 'own', **options)
    maps, pooled = encoder(torch.randn(2, 3, 16, 24))
    assert [m.shape for m in maps] == [shape] and pooled.shape == shape[:2]
    torch.testing.assert_close(pooled, maps[0].mean((2, 3)))
    assert encoder.patch == dict(Made=4, make=8).get(name, 1)


def test_summaries_tokens_and_mappings():
    class Radio(nn.Module):
        patch_size = (4, 4)

        def forward(self, x):
            tokens = torch.arange(7.0).view(1, 7, 1).expand(len(x), -1, 5)
            return dict(summary=x.new_ones(len(x), 9), tokens=tokens)

    (patches,), pooled = ModuleEncoder(Radio(), 'own')(torch.zeros(2, 3, 8, 12))
    assert patches.shape == (2, 5, 2, 3) and patches[0, 0].flatten().tolist() == [1, 2, 3, 4, 5, 6]
    assert pooled.shape == (2, 9)


def test_a_vector_alone_is_no_map():
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match=r'gives no maps \(N, D, h, w\)'):
        ModuleEncoder(network, 'own').try_out()


def test_tokens_of_unknown_patches():
    network = nn.Sequential(nn.Conv2d(3, 5, 4, 4), nn.Flatten(2), nn.Unflatten(2, (-1, 1)))
    with pytest.raises(ValueError, match='cannot be run on an image of 64 x 65 pixels .*patch='):
        ModuleEncoder(nn.Sequential(*network[:2]), 'own').try_out()


@pytest.mark.parametrize(
    ('name', 'options', 'error', 'words'),
    [
        ('number', {}, TypeError, 'must be a module of torch, something that makes one'),
        ('Made', dict(checkpoint=None), ValueError, "'own' where it comes with its weights"),
        ('Made', dict(layers=(0,)), ValueError, 'layers, norm and download are of models of timm'),
        ('Made', dict(norm=False), ValueError, 'Leave them out'),
        ('Made', dict(download=True), ValueError, 'Leave them out'),
        ('Made', dict(patch=0), ValueError, 'patch must be a whole number of at least 1'),
    ],
)
def test_bad_input(file, name, options, error, words):
    with pytest.raises(error, match=words):
        ModuleEncoder(f'{file}:{name}', **(dict(checkpoint='own') | options))
