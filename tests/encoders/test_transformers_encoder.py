"""Encoders of transformers: own weights and pixels, maps of blocks, towers, and what is refused."""

import json
import sys

import pytest
import torch
from library_toys import write_folder

from mmkd.encoders.transformers_encoder import TransformersEncoder


def as_grid(tokens):
    return tokens[:, 2:].transpose(1, 2).unflatten(2, (2, 3))


def test_blocks_and_the_last_normalisation(transformers, tmp_path):
    model = write_folder(tmp_path / 'm')
    encoder = TransformersEncoder(str(tmp_path / 'm'), None, (0, 1, -1)).eval()
    x = torch.randn(2, 3, 8, 12)
    maps, pooled = encoder(x)
    steps = [*model.steps(x)]
    for found, tokens in zip(maps, steps, strict=True):
        assert torch.equal(found, as_grid(model.layernorm(tokens)))
    assert torch.equal(pooled, model.layernorm(steps[-1])[:, 0])
    bare = TransformersEncoder(str(tmp_path / 'm'), None, (0, -1), norm=False).eval()
    for found, tokens in zip(bare(x)[0], (steps[0], steps[-1]), strict=True):
        assert torch.equal(found, as_grid(tokens))
    assert not any(block._forward_hooks for block in encoder.blocks)


def test_pixels_of_the_folder(transformers, tmp_path):
    write_folder(tmp_path / 'm')
    encoder = TransformersEncoder(str(tmp_path / 'm'), None)
    assert encoder.mean == pytest.approx([127.5, 102, 76.5]) and encoder.std == [51.0] * 3
    assert encoder.size == (16, 16) and encoder.fit and not encoder.fit.missing
    file = tmp_path / 'm' / 'preprocessor_config.json'
    file.write_text(json.dumps(json.loads(file.read_text()) | dict(do_rescale=False)))
    assert TransformersEncoder(str(tmp_path / 'm'), None).mean == [0.5, 0.4, 0.3]
    file.unlink()
    assert TransformersEncoder(str(tmp_path / 'm'), None).mean[0] == pytest.approx(123.675)


def test_the_tower_of_images(transformers, tmp_path):
    model = write_folder(tmp_path / 'm', towers=2)
    encoder = TransformersEncoder(str(tmp_path / 'm'), None).eval()
    x = torch.randn(1, 3, 8, 12)
    *_, last = model.vision_model.steps(x)
    assert torch.equal(encoder(x)[0][0], as_grid(model.vision_model.layernorm(last)))


def test_one_size_alone(transformers, tmp_path):
    write_folder(tmp_path / 'm', normed=False)
    with pytest.raises(ValueError, match=r'set size=\(16, 16\), to which they are then resized'):
        TransformersEncoder(str(tmp_path / 'm'), None).eval().try_out()
    with pytest.raises(ValueError, match='no normalisation behind its last block'):
        TransformersEncoder(str(tmp_path / 'm'), None, (0,))
    encoder = TransformersEncoder(str(tmp_path / 'm'), None, (0, -1), norm=False)
    assert [m.shape for m in encoder(torch.randn(1, 3, 16, 16))[0]] == [(1, 8, 4, 4)] * 2


def test_random_weights_need_a_config_alone(transformers, tmp_path):
    write_folder(tmp_path / 'm', weights=False)
    assert TransformersEncoder(str(tmp_path / 'm'), 'random').fit is None
    with pytest.raises(ValueError, match='cannot be loaded .no file named model.safe'):
        TransformersEncoder(str(tmp_path / 'm'), None)


def test_a_file_of_weights(transformers, tmp_path):
    model = write_folder(tmp_path / 'm', weights=False)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'w.pth')
    encoder = TransformersEncoder(str(tmp_path / 'm'), str(tmp_path / 'w.pth')).eval()
    x = torch.randn(1, 3, 8, 12)
    *_, last = model.steps(x)
    assert torch.equal(encoder(x)[0][0], as_grid(model.layernorm(last)))
    assert encoder.source == str(tmp_path / 'w.pth') and encoder.fit


@pytest.mark.parametrize(
    ('changes', 'options', 'words'),
    [
        (dict(model_type='new'), {}, 'no model that transformers toy has .* code of their own'),
        (dict(patch_size=None), {}, 'is a Model, which is no transformer of image patches'),
        ({}, dict(layers=(3,)), 'has 3 layers'),
        ({}, dict(patch=14), 'patch=14 has no effect'),
    ],
)
def test_bad_input(transformers, tmp_path, changes, options, words):
    write_folder(tmp_path / 'm', weights=False)
    config = json.loads((tmp_path / 'm' / 'config.json').read_text()) | changes
    (tmp_path / 'm' / 'config.json').write_text(json.dumps(config))
    with pytest.raises(ValueError, match=words):
        TransformersEncoder(str(tmp_path / 'm'), 'random', **options)


def test_no_folder_no_config_no_library(transformers, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match='has no config.json'):
        TransformersEncoder(str(tmp_path), 'random')
    monkeypatch.setitem(sys.modules, 'transformers', None)
    with pytest.raises(ImportError, match=r"transformers cannot be imported .* 'mmkd\[transf"):
        TransformersEncoder(str(tmp_path), 'random')
