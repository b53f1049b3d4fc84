"""Encoders of timm: maps of blocks and stages, head, size, and what is refused."""

import json
import sys

import pytest
import torch
from library_toys import PATCH, TimmBlocks
from safetensors.torch import save_file

from mmkd.encoders.timm_encoder import TimmEncoder


def test_blocks(timm):
    encoder = TimmEncoder('toy_vit', 'random', (0, -1)).eval()
    x = torch.randn(2, 3, 8, 12)
    maps, pooled = encoder(x)
    assert [m.shape for m in maps] == [(2, 8, 2, 3)] * 2 and encoder.patch == PATCH
    steps = [encoder.network.layernorm(tokens) for tokens in encoder.network.steps(x)]
    assert torch.equal(maps[1], steps[-1][:, 2:].transpose(1, 2).unflatten(2, (2, 3)))
    assert torch.equal(pooled, steps[-1][:, 0])
    bare = TimmEncoder('toy_vit', 'random', norm=False)(x)[0][0]
    assert not torch.allclose(bare, maps[1])
    assert encoder.mean == [127.5] * 3 and encoder.std == [63.75] * 3 and encoder.size == (16, 16)
    assert encoder.network.num_classes == 0, 'as its weights have it'


def test_stages_of_convolutions(timm):
    encoder = TimmEncoder('toy_convs', 'random', (0, 1))
    maps, pooled = encoder(torch.randn(1, 3, 8, 12))
    assert [m.shape for m in maps] == [(1, 4, 4, 6), (1, 6, 2, 3)] and encoder.patch == 4
    torch.testing.assert_close(pooled, maps[1].mean((2, 3)))
    assert encoder.mean[0] == pytest.approx(123.675), 'whose files say nothing'


def test_a_folder(timm, tmp_path):
    (tmp_path / 'config.json').write_text(json.dumps(dict(architecture='toy_vit')))
    with pytest.raises(FileNotFoundError, match='no model.safetensors, only config.json'):
        TimmEncoder(str(tmp_path), None)
    save_file(TimmBlocks(0).state_dict(), tmp_path / 'model.safetensors')
    assert TimmEncoder(str(tmp_path), None).file == str(tmp_path / 'model.safetensors')


@pytest.mark.parametrize(
    ('name', 'options', 'words'),
    [
        (
            'toy_vitt',
            {},
            "no model 'toy_vitt', and there is no such folder. Did you mean 'toy_vit'",
        ),
        ('toy_mapless', {}, 'gives no maps of its layers'),
        ('toy_vit', dict(layers=(3,)), 'has 3 layers'),
        ('toy_vit', dict(patch=14), 'patch=14 has no effect'),
    ],
)
def test_bad_input(timm, name, options, words):
    with pytest.raises(ValueError, match=words):
        TimmEncoder(name, 'random', **options)


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, 'timm', None)
    with pytest.raises(ImportError, match='timm cannot be imported .* needs a torchvision'):
        TimmEncoder('toy_vit', 'random')
