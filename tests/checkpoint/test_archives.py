"""Archives that torch.save has not written, or that are cut short."""

import warnings
import zipfile

import pytest
import torch
from torch import nn

from mmkd.checkpoint import CheckpointError, read_checkpoint


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('part', [0.02, 0.5, 0.99])
def test_truncated(path, zipped, part):
    torch.save(dict(a=torch.rand(1000)), path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(CheckpointError, match='truncated|damaged'):
        read_checkpoint(path)


def test_other_archives(path):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.jit.script(nn.Linear(1, 1)).save(str(path))
    with pytest.raises(CheckpointError, match='TorchScript'):
        read_checkpoint(path)


def archive_of(path):
    with zipfile.ZipFile(path) as archive:
        return {record.filename: archive.read(record) for record in archive.infolist()}


def rewrite(path, change, **options):
    """Pack an archive of torch anew, with other records."""
    records = archive_of(path)
    change(records)
    with zipfile.ZipFile(path, 'w', **options) as archive:
        for name, content in records.items():
            archive.writestr(name, content)


def test_compressed_archives_are_not_unpacked(path):
    torch.save(dict(a=torch.zeros(2**18)), path)
    rewrite(path, lambda records: None, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match='is compressed'):
        read_checkpoint(path)


@pytest.mark.parametrize('zipped', [True, False])
def test_a_tensor_must_be_in_the_file(path, zipped):
    """The number of elements is raised from 1000 to 2 ** 30, where the data are, and in the shape."""
    torch.save(dict(a=torch.zeros(1000)), path, _use_new_zipfile_serialization=zipped)
    short, long = b'M\xe8\x03', b'J\x00\x00\x00\x40'

    def grow(records):
        name = 'x/data.pkl'
        records[name] = records[name].replace(short, long)

    if zipped:
        rewrite(path, grow)
    else:
        path.write_bytes(path.read_bytes().replace(short, long))
    with pytest.raises(
        CheckpointError, match='tensors of 4294967296 bytes, of which 4[0-9]{3} are'
    ):
        read_checkpoint(path)


def test_two_records_of_a_name(path):
    torch.save(dict(a=torch.zeros(1)), path)
    rewrite(path, lambda records: records.update({'x/DATA.pkl': records['x/data.pkl']}))
    with pytest.raises(CheckpointError, match='two records of the same name'):
        read_checkpoint(path)


def test_the_pickle_that_is_judged_is_the_one_that_is_read(path):
    """Both are in the folder of the first record, and torch allows no second folder."""
    torch.save(dict(a=torch.zeros(1)), path)
    rewrite(path, lambda records: records.update({'y/data.pkl': b'garbage'}))
    with pytest.raises(CheckpointError, match='damaged'):
        read_checkpoint(path)
