"""The kind of a file, found before a byte of it is unpickled."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import torch

from mmkd.checkpoint.archives import check_archive
from mmkd.checkpoint.checkpoint_error import CheckpointError, first_line

_FOREIGN = (
    (b'version https://git-lfs', 'a git-lfs pointer', 'Run `git lfs pull` in its repository.'),
    (b'\xff\xd8\xff', 'a JPEG image', ''),
    (b'\x89PNG', 'a PNG image', ''),
    (b'\x1f\x8b', 'a gzip archive', 'Unpack it first.'),
    (b'\xfd7zXZ', 'an xz archive', 'Unpack it first.'),
    (b'\x89HDF', 'an HDF5 file', ''),
)


def check_file(path: str) -> None:
    """Refuse files that are not complete checkpoints, by their first bytes and archive index.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: no regular file, empty, of another kind, or cut short.
    """
    _check_regular(path)
    head = _head_of(path)
    if not head:
        raise CheckpointError(f'checkpoint {path} is empty. Copy or download it again.')
    if head.startswith(b'PK'):
        check_archive(path)
    elif not head.startswith(b'\x80') and not _begins_safetensors(head):
        kind, hint = _kind_of(head)
        raise CheckpointError(f'{path} is {kind}, not a PyTorch checkpoint. {hint}'.strip())


def _check_regular(path: str) -> None:
    """A pipe would be waited for, and a device read without end."""
    if not os.path.exists(path):
        near = sorted(p.name for p in Path(path).parent.glob('*.pth'))[:6]
        hint = f' Beside it: {", ".join(near)}.' if near else ''
        raise FileNotFoundError(f'checkpoint {path} does not exist.{hint}')
    if os.path.isdir(path):
        raise CheckpointError(f'checkpoint {path} is a directory; a file is needed.')
    if not os.path.isfile(path):
        raise CheckpointError(
            f'checkpoint {path} is no regular file but a pipe, socket or device. Copy what it '
            'gives to a file.'
        )


def _head_of(path: str) -> bytes:
    if not os.path.getsize(path):  # also what /proc makes up
        return b''
    with open(path, 'rb') as file:
        return file.read(512)


def is_safetensors(path: str) -> bool:
    """Whether the file begins as those of the safetensors format do."""
    return _begins_safetensors(_head_of(path))


def _begins_safetensors(head: bytes) -> bool:
    """The length of a JSON mapping, in eight bytes, and the mapping."""
    return head[8:10] in (b'{"', b'{ ', b'{}')


def _kind_of(head: bytes) -> tuple[str, str]:
    for magic, kind, hint in _FOREIGN:
        if head.startswith(magic):
            return kind, hint
    text = head.lstrip().lower()
    if text.startswith((b'<!doctype', b'<html', b'<?xml', b'<head')):
        return 'a web page', 'The download address probably answered with an error page.'
    if not any(byte < 9 for byte in head):
        return f'a text file starting with {head[:30]!r}', ''
    return f'a file of unknown kind starting with {head[:8]!r}', ''


def find_damage(path: str) -> str | None:
    """Read every byte; returns the damage of a checkpoint file, None if there is none."""
    try:
        check_file(path)
        # torch can be told to write no checksums; then there is nothing to compare.
        if zipfile.is_zipfile(path) and torch.serialization.get_crc32_options():
            with zipfile.ZipFile(path) as archive:
                bad = archive.testzip()
            return f'{path} is damaged ({bad} does not match its checksum).' if bad else None
    except (CheckpointError, OSError, zipfile.BadZipFile) as error:
        return first_line(error)
    return None
