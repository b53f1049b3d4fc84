"""Files of torch.save, checked before torch reads them: a zip archive, or consecutive pickles."""

from __future__ import annotations

import io
import mmap
import os
import pickle
import struct
import zipfile
import zlib
from typing import Any, BinaryIO

from torch.serialization import StorageType

from mmkd.checkpoint.checkpoint_error import CheckpointError, damage
from mmkd.checkpoint.scanning import Contents, Name, scan

_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of torch's older format


def check_archive(path: str) -> None:
    """Refuse a zip archive that torch.save has not written, by its index.

    Raises:
        CheckpointError: cut short, of another kind, compressed, or larger inside than outside.
    """
    try:
        whole = zipfile.is_zipfile(path)
        if whole:
            with zipfile.ZipFile(path) as archive:
                records = archive.infolist()
    except Exception as error:  # noqa: BLE001  damaged bytes can raise anything
        raise CheckpointError(damage(path, error)) from None
    if not whole:
        raise CheckpointError(
            f'{path} is truncated: its end is missing. Copy or download it again.'
        )
    names = [record.filename for record in records]
    if _pickle_name(names) not in names:
        raise CheckpointError(f'{path} is a zip archive, not a PyTorch checkpoint.')
    if any(name.endswith('constants.pkl') for name in names):
        raise CheckpointError(
            f'{path} is a TorchScript archive, not a checkpoint. Save model.state_dict() instead.'
        )
    size, inside = os.path.getsize(path), sum(record.file_size for record in records)
    if inside > size or any(record.compress_type for record in records):
        raise CheckpointError(
            f'{path} is compressed, which torch.save never does, or damaged: {inside} bytes are '
            f'said to be in its {size}. If it was packed on purpose, pack it without compression.'
        )
    if len({name.lower() for name in names}) < len(names):
        raise CheckpointError(f'{path} is damaged: it holds two records of the same name.')


def _pickle_name(names: list[str]) -> str:
    """Where torch looks, which is the folder of the first record."""
    return names[0].partition('/')[0] + '/data.pkl' if names else ''


def is_archive(path: str) -> bool:
    """Whether torch takes it for a zip archive, which is decided by the first bytes alone."""
    with open(path, 'rb') as file:
        return file.read(4) == b'PK\x03\x04'


def survey(path: str) -> Contents:
    """Contents of the pickle in a file of torch.save.

    Raises:
        CheckpointError: a pickle that torch.save has not written.
        UnpicklingError and others: a damaged pickle, or tensors larger than the file.
    """
    if is_archive(path):
        return _survey_archive(path)
    size = os.path.getsize(path)
    # Mapped, so that no text can claim to be longer than the file and be made room for.
    with open(path, 'rb') as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as file:
        if scan(file).value != _MAGIC:
            raise CheckpointError(f'{path} is a pickle, but not one written by torch.save.')
        machine = scan(file), scan(file)
        found = scan(file)
        keys = scan(file)
        for other in (*machine, keys):  # plain lists and mappings, unpickled like the rest
            found.names |= other.names
            found.calls |= other.calls
            found.odd += other.odd
        _check_sizes(found, size - file.tell())
    return found


def _survey_archive(path: str) -> Contents:
    with zipfile.ZipFile(path) as archive, open(path, 'rb') as file:
        records = {record.filename: record for record in archive.infolist()}
        name = _pickle_name(list(records))
        pickled = _stored_bytes(file, records[name])
        folder = name.removesuffix('data.pkl')
        sizes = {
            key.removeprefix(f'{folder}data/'): record.file_size for key, record in records.items()
        }
    found = scan(io.BytesIO(pickled))
    _check_sizes(found, sizes)
    found.intact = zlib.crc32(pickled) == records[name].CRC
    return found


def _stored_bytes(file: BinaryIO, record: zipfile.ZipInfo) -> bytes:
    """Content of a record that is not compressed, whether or not its checksum is right."""
    file.seek(record.header_offset + 26)
    file.seek(sum(struct.unpack('<HH', file.read(4))), os.SEEK_CUR)
    return file.read(record.file_size)


def _check_sizes(found: Contents, room: int | dict[str, int]) -> None:
    """Compare the sizes of tensors with the bytes in the file, per record or in total.

    Raises:
        UnpicklingError: tensors do not fit into the file.
    """
    wanted: dict[Any, int] = {}
    for identity in found.storages:
        if identity[0].what == 'storage':
            kind, key, _, count = (part.what for part in identity[1:5])
            wanted[key] = max(wanted.get(key, 0), _whole(count) * _item_size(kind))
    if isinstance(room, int):
        wanted, room = dict(all=sum(wanted.values())), dict(all=room)
    for key, size in wanted.items():
        if size > room.get(key, 0):
            raise pickle.UnpicklingError(
                f'tensors of {size} bytes, of which {room.get(key, 0)} are there'
            )


def _whole(count: Any) -> int:
    if type(count) is not int or count < 0:
        raise pickle.UnpicklingError('a storage of no size')
    return count


def _item_size(kind: Any) -> int:
    """Bytes of one number of a storage type."""
    if not isinstance(kind, Name):
        raise pickle.UnpicklingError('a storage of no type')
    last = kind.rpartition('.')[2]
    return 1 if last == 'UntypedStorage' else StorageType(last).dtype.itemsize
