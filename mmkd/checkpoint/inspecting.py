"""What kind of file it is, judged before a byte of it is unpickled."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import torch

from mmkd.checkpoint.errors import CheckpointError, first_line

_FOREIGN = (
    (b'version https://git-lfs', 'a git-lfs pointer', 'Run `git lfs pull` in its repository.'),
    (b'\xff\xd8\xff', 'a JPEG image', ''),
    (b'\x89PNG', 'a PNG image', ''),
    (b'\x1f\x8b', 'a gzip archive', 'Unpack it first.'),
    (b'\xfd7zXZ', 'an xz archive', 'Unpack it first.'),
    (b'\x89HDF', 'an HDF5 file', ''),
)


def check_file(path: str) -> None:
    """Refuse what cannot be a complete checkpoint, by its first bytes and its archive index.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: a directory, empty, of another kind, or cut short.
    """
    if not os.path.exists(path):
        near = sorted(p.name for p in Path(path).parent.glob('*.pth'))[:6]
        hint = f' Beside it: {", ".join(near)}.' if near else ''
        raise FileNotFoundError(f'checkpoint {path} does not exist.{hint}')
    if os.path.isdir(path):
        raise CheckpointError(f'checkpoint {path} is a directory; a file is needed.')
    with open(path, 'rb') as file:
        head = file.read(512)
    if not head:
        raise CheckpointError(f'checkpoint {path} is empty. Copy or download it again.')
    if head.startswith(b'PK'):
        _check_archive(path)
    elif not head.startswith(b'\x80'):
        kind, hint = _kind_of(head)
        raise CheckpointError(f'{path} is {kind}, not a PyTorch checkpoint. {hint}'.strip())


def _kind_of(head: bytes) -> tuple[str, str]:
    for magic, kind, hint in _FOREIGN:
        if head.startswith(magic):
            return kind, hint
    text = head.lstrip().lower()
    if text.startswith((b'<!doctype', b'<html', b'<?xml', b'<head')):
        return 'a web page', 'The download address probably answered with an error page.'
    if head[8:10] == b'{"':
        return 'a safetensors file', 'Convert it with safetensors.torch.load_file + torch.save.'
    if not any(byte < 9 for byte in head):
        return f'a text file starting with {head[:30]!r}', ''
    return f'a file of unknown kind starting with {head[:8]!r}', ''


def _check_archive(path: str) -> None:
    if not zipfile.is_zipfile(path):
        raise CheckpointError(
            f'{path} is truncated: its end is missing. Copy or download it again.'
        )
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if not any(name.endswith('data.pkl') for name in names):
        raise CheckpointError(f'{path} is a zip archive, not a PyTorch checkpoint.')
    if any(name.endswith('constants.pkl') for name in names):
        raise CheckpointError(
            f'{path} is a TorchScript archive, not a checkpoint. Save model.state_dict() instead.'
        )


def find_damage(path: str) -> str | None:
    """Read every byte: what is wrong with a checkpoint file, None if nothing."""
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
