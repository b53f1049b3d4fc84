"""Channels of a file: which dimension they are of, and what a file must hold."""

import json

import pytest
import torch

from mmkd.functional.channels import keep_channels, read_channels


def test_of_maps_vectors_and_tokens():
    x = torch.arange(6.0).view(2, 3)
    assert keep_channels(x, (2, 0)).tolist() == [[2, 0], [5, 3]]
    maps, tokens = torch.randn(2, 3, 4, 5), torch.randn(2, 7, 3)
    assert torch.equal(keep_channels(maps, (1,)), maps[:, 1:2])
    assert torch.equal(keep_channels(tokens, (2, 1)), tokens[:, :, [2, 1]])
    with pytest.raises(ValueError, match='channel 3 is to be kept, but there are 3, counted'):
        keep_channels(x, (0, 3))


def test_files(tmp_path):
    file = tmp_path / 'channels.json'
    with pytest.raises(ValueError, match='there is no file .*channels.json'):
        read_channels(str(file))
    file.write_text(json.dumps(dict(channels=[3, 0])))
    assert read_channels(str(file)) == (3, 0)
    for text in ('[3]', '{"channels": []}', '{"channels": [1, 1]}', '{"channels": [-1]}', 'x'):
        file.write_text(text)
        with pytest.raises(ValueError, match='numbers from 0, each once'):
            read_channels(str(file))
