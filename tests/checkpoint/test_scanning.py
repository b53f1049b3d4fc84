"""Pickles are looked through before they are followed: what they name, want and would exhaust."""

import io
import pickle
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

from mmkd.checkpoint import CheckpointError, read_checkpoint
from mmkd.checkpoint.scanning import scan

END = b'.'
HISTORY = HistoryBuffer([1.0], [1])


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


@pytest.mark.parametrize('collect', [list, set, Counter, OrderedDict, HistoryBuffer])
def test_tensors_are_not_looked_through(path, collect):
    """One stored number, repeated without end, would be made into as many objects."""
    torch.save(dict(a=Call(collect, torch.zeros(1).expand(2**40))), path)
    with pytest.raises(CheckpointError, match='with something else than data'):
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
