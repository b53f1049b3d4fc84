"""What kind of file it is, and damage that its checksums show."""

import os
import pickle
import socket

import pytest
import torch

from mmkd.checkpoint import CheckpointError, find_damage, read_checkpoint


@pytest.mark.parametrize(
    'content, message',
    [
        (b'', 'is empty'),
        (b'\xff\xd8\xff\xe0 jpeg', 'is a JPEG image'),
        (b'\n<!DOCTYPE html><html>404', 'is a web page'),
        (b'version https://git-lfs.github.com/spec/v1\noid', 'git lfs pull'),
        (b'just some text', 'is a text file'),
        (b'\x00\x01\x02\x03', 'unknown kind'),
        (b'PK\x03\x04 and then it ends', 'is truncated'),
        (pickle.dumps([1, 2], protocol=2), 'not one written by torch.save'),
    ],
)
def test_other_files(path, content, message):
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value) and '\n' not in str(caught.value)


def test_flipped_bits_are_found(path):
    torch.save(dict(a=torch.zeros(1000)), path)
    assert find_damage(str(path)) is None
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert 'checksum' in find_damage(str(path))


def test_missing_file_and_directory(tmp_path):
    torch.save({}, tmp_path / 'epoch_1.pth')
    with pytest.raises(FileNotFoundError, match=r'does not exist.*epoch_1\.pth'):
        read_checkpoint(tmp_path / 'epoch_2.pth')
    with pytest.raises(CheckpointError, match=r'no complete checkpoint in .*epoch_1\.pth'):
        read_checkpoint(tmp_path)  # an empty mapping is no state of a run


def test_pipes_sockets_and_devices_are_not_opened(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / 'pipe')
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # the path of a socket is short
        server.bind('socket')
    (tmp_path / 'link').symlink_to('/dev/zero')
    for name in ('pipe', 'socket', 'link'):
        with pytest.raises(CheckpointError, match='no regular file'):
            read_checkpoint(tmp_path / name)
        assert 'no regular file' in find_damage(str(tmp_path / name))
