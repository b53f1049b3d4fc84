"""Pickles are looked through before they are followed: what they name, want and would exhaust."""

import io
import os
import pickle
import socket
import struct
import tracemalloc
import zipfile
from collections import Counter, OrderedDict
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hostile_files import Call, contents, legacy, zipped
from mmengine.logging import HistoryBuffer

from mmkd.checkpoint import CheckpointError, find_damage, read_checkpoint
from mmkd.checkpoint.scanning import MAX_DEPTH, scan

END = b'.'
HISTORY = HistoryBuffer([1.0], [1])


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'x.pth'


@pytest.mark.parametrize('protocol', range(6))
def test_names_of_every_protocol(protocol):
    found = scan(io.BytesIO(pickle.dumps([len, np.float32(1), {b'x', 'y'}, (1, 2)], protocol)))
    assert {'builtins.len', 'numpy.dtype'} <= found.names and found.protocol == (
        protocol if protocol > 1 else 0
    )
    assert 'numpy.dtype' in found.calls and 'builtins.len' not in found.calls and not found.odd


BOMBS = {
    'deep key': b'\x80\x02}' + b')' + b'\x85' * 10**5 + b'K\x01s.',
    'deep list': b'\x80\x02' + b']' * 10**4 + b'a' * (10**4 - 1) + END,
    'doubled key': b'\x80\x02}' + b')' + b'2\x86' * 60 + b'K\x01s.',
    'huge memo': b'\x80\x02}r\xff\xff\xff\x7f.',
    'huge text': b'\x80\x02X\xff\xff\xff\x7fabc.',
    'huge bytes': b'\x80\x04\x8e' + struct.pack('<Q', 2**62) + b'abc.',
    'huge number': b'\x80\x02\x8b\xff\xff\xff\x7fabc.',
    'no marks': b'\x80\x02t.',
    'empty stack': b'\x80\x02s.',
    'no end': b'\x80\x02}',
    'called number': b'\x80\x02K\x01)R.',
    'changed function': b'\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}b.',
    'extension': b'\x80\x02\x82\x01.',
    'tensor of a size': b'\x80\x02ctorch\nFloatTensor\nJ\x00\x00\x00\x40\x85R.',
    'slow codec': b'\x80\x02c_codecs\nencode\nX\x02\x00\x00\x00abX\x08\x00\x00\x00punycode\x86R.',
    'type called': b'\x80\x02ctorch\nFloatStorage\nJ\x00\x00\x00\x40\x85R.',
}


@pytest.mark.parametrize('write', [zipped, legacy])
@pytest.mark.parametrize('kind', BOMBS)
def test_bombs_are_refused_before_they_go_off(path, kind, write):
    write(path, BOMBS[kind])
    with pytest.raises(CheckpointError), at_most(2**26):
        read_checkpoint(path)


@contextmanager
def at_most(size):
    """Bytes that Python asks for inside, whatever is raised."""
    tracemalloc.start()
    try:
        yield
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < size


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


def test_a_repeated_number_is_no_endless_tensor(path):
    torch.save(dict(a=torch.zeros(1).expand(1000, 1000)), path)
    assert read_checkpoint(path)['a'].shape == (1000, 1000)
    torch.save(dict(a=torch.zeros(1).expand(2**20, 2**20)), path)
    with pytest.raises(CheckpointError, match='a tensor of 4398046511104 bytes in a file of'):
        read_checkpoint(path)


@pytest.mark.parametrize('collect', [list, set, Counter, OrderedDict, HistoryBuffer])
def test_tensors_are_not_looked_through(path, collect):
    """One stored number, repeated without end, would be made into as many objects."""
    torch.save(dict(a=Call(collect, torch.zeros(1).expand(2**40))), path)
    with pytest.raises(CheckpointError, match='with something else than data'):
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


def test_cycles_and_shared_parts_are_read(path):
    shared = (np.ones(2), [np.float32(3)])
    checkpoint = dict(contents(None), a=shared, b=[shared, shared])
    checkpoint['loop'] = [checkpoint['b']]
    checkpoint['loop'].append(checkpoint['loop'])
    torch.save(checkpoint, path)
    found = read_checkpoint(path)
    assert found['loop'][1] is found['loop'] and found['b'][0] is found['a']
    assert found['a'][0].tolist() == [1, 1] and found['a'][1] == [3]


def test_methods_of_a_mapping_cannot_be_replaced(path):
    checkpoint = contents(None)
    checkpoint['state_dict'].values = 'harmless text'
    torch.save(checkpoint, path)
    assert len(list(read_checkpoint(path)['state_dict'].values())) == 2


def test_nesting_up_to_the_limit(path):
    deep = 1
    for _ in range(MAX_DEPTH - 2):
        deep = [deep]
    torch.save(dict(a=deep), path)
    read_checkpoint(path)
    torch.save(dict(a=[[deep]]), path)
    with pytest.raises(CheckpointError, match='nested more than'):
        read_checkpoint(path)


# ----------------------------------------------------------------------------------------- damage


def test_a_damaged_pickle_is_called_damaged(path):
    """Never unsafe: nobody should get used to trusting files because they are broken."""
    torch.save(contents(HISTORY), path)
    name = 'x/data.pkl'
    pickled = archive_of(path)[name]
    content, start = path.read_bytes(), path.read_bytes().index(pickled)
    for place in range(0, len(pickled), len(pickled) // 60):
        damaged = bytearray(content)
        damaged[start + place] ^= 0x20
        path.write_bytes(damaged)
        try:
            read_checkpoint(path)
        except CheckpointError as error:
            assert 'damaged' in str(error) and 'trust' not in str(error)


def test_names_that_do_not_exist_are_damage(path):
    torch.save(contents(None), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b'collections\n', b'colleptions\n'))
    with pytest.raises(CheckpointError, match='damaged, or made for a package that is missing'):
        read_checkpoint(path)


def test_newer_protocols_can_only_be_trusted(path):
    torch.save(dict(a=torch.ones(1)), path, pickle_protocol=4)
    with pytest.raises(CheckpointError, match='pickle protocol 4.*--trust-checkpoint'):
        read_checkpoint(path)
    assert read_checkpoint(path, trust=True)['a'] == 1


# ------------------------------------------------------------------------------ other than regular


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
