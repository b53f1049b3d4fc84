"""Pickled and YAML annotations hold plain data; mmengine's own reading is the oracle for those."""

import io
import pickle
import struct
from collections import OrderedDict, defaultdict

import mmengine
import numpy as np
import pytest
import torch
import yaml
from hostile_files import run_by
from mmengine.structures import InstanceData

from mmkd.checkpoint import CheckpointError, trust_checkpoints

PROPOSALS = InstanceData(bboxes=np.ones((3, 4), 'f4'), scores=np.arange(3.0))
PLAIN = dict(
    images=[dict(name='ü.jpg', size=(3, 4), raw=b'\xff', crowd=False, area=1.5, none=None)],
    boxes=np.arange(8).reshape(2, 4),
    columns=np.asfortranarray(np.arange(6).reshape(2, 3)),
    names=np.array(['a', 'bc']),
    score=np.float32(0.5),
    kinds={1, 2},
    fixed=frozenset('ab'),
    groups=defaultdict(list, a=[1]),
    order=OrderedDict(b=1),
    large=2**100,
    complex=1 + 2j,
)


@pytest.mark.parametrize('protocol', range(6))
def test_plain_data_are_read_as_ever(tmp_path, protocol):
    path = tmp_path / 'annotations.pkl'
    path.write_bytes(pickle.dumps(PLAIN, protocol))
    found = mmengine.load(str(path))
    for key in ('boxes', 'columns', 'names', 'score'):
        wanted, value = PLAIN[key], found.pop(key)
        assert np.array_equal(value, wanted) and value.dtype == wanted.dtype
        assert value.flags.f_contiguous == wanted.flags.f_contiguous
    assert found == {key: PLAIN[key] for key in found}


@pytest.mark.parametrize('protocol', range(6))
def test_proposals_of_mmdet_are_read(tmp_path, protocol):
    path = tmp_path / 'proposals.pkl'
    path.write_bytes(pickle.dumps({'val/1.jpg': PROPOSALS}, protocol))
    found = mmengine.load(str(path))['val/1.jpg']
    assert np.array_equal(found.bboxes, PROPOSALS.bboxes) and len(found) == 3


def test_pickles_of_python_2_are_read():
    old = b'\x80\x02}q\x00U\x04caf\xe9q\x01]q\x02K\x01as.'
    assert mmengine.load(io.BytesIO(old), 'pkl', encoding='latin1') == {'café': [1]}


@pytest.mark.parametrize('protocol', range(6))
@pytest.mark.parametrize('ending', ['pkl', 'pickle'])
def test_pickles_that_run_something_are_refused(tmp_path, ending, protocol):
    marker, path = tmp_path / 'marker', tmp_path / f'x.{ending}'
    path.write_bytes(pickle.dumps([1, run_by(marker)], protocol))
    with pytest.raises(CheckpointError, match='builtins.eval.*--trust-checkpoint'):
        mmengine.load(str(path))
    assert not marker.exists()


@pytest.mark.parametrize(
    'content',
    [
        pickle.dumps(PLAIN)[:-20],
        b'\x80\x02}r\xff\xff\xff\x7f.',  # a table of 32 GB
        b'\x80\x02}' + b')' + b'\x85' * 10**5 + b'K\x01s.',
        b'\x80\x02cmmengine.structures.instance_data\nInstanceData\nN}X\x01\x00\x00\x00aK\x01s\x86b.',
        b'no pickle',
    ],
    ids=['cut off', 'table', 'deep', 'changed class', 'text'],
)
def test_damaged_and_exhausting_pickles(content):
    with pytest.raises(CheckpointError, match='truncated or damaged'):
        mmengine.load(io.BytesIO(content), 'pkl')
    assert not hasattr(InstanceData, 'a')


@pytest.mark.parametrize('kind', ['run', 'change', 'plain'])
def test_large_pickles(tmp_path, kind):
    """Only the names are checked there, which is enough for nothing to run."""
    marker, padding = tmp_path / 'marker', bytes(2**22)
    change = (
        b'\x80\x04cmmengine.structures.instance_data\nInstanceData\nN}X\x01\x00\x00\x00aK\x01s\x86b'
    )
    content = dict(
        run=pickle.dumps([padding, run_by(marker)]),
        change=change + b'B' + struct.pack('<I', len(padding)) + padding + b'\x86.',
        plain=pickle.dumps([padding, PROPOSALS]),
    )[kind]
    if kind == 'run':
        with pytest.raises(CheckpointError, match='builtins.eval'):
            mmengine.load(io.BytesIO(content), 'pkl')
    else:
        mmengine.load(io.BytesIO(content), 'pkl')
    assert not marker.exists() and not hasattr(InstanceData, 'a')


def test_yaml(tmp_path):
    marker, path = tmp_path / 'marker', tmp_path / 'x.yaml'
    plain = dict(a=[1, 2.5, 'x', None, True], size=(1, 2))
    path.write_text(yaml.dump(plain))
    assert mmengine.load(str(path)) == plain
    path.write_text(f'a: !!python/object/apply:os.system ["touch {marker}"]')
    with pytest.raises(CheckpointError, match='python/object/apply:os.system.*--trust-checkpoint'):
        mmengine.load(str(path))
    assert not marker.exists()


def test_trust(tmp_path):
    (tmp_path / 'x.pkl').write_bytes(pickle.dumps(torch.Size([1])))
    (tmp_path / 'x.yaml').write_text('!!python/name:len')
    trust_checkpoints()
    try:
        assert mmengine.load(str(tmp_path / 'x.pkl')) == torch.Size([1])
        assert mmengine.load(str(tmp_path / 'x.yaml')) is len
    finally:
        trust_checkpoints(False)
    with pytest.raises(CheckpointError):
        mmengine.load(str(tmp_path / 'x.pkl'))


def test_what_mmengine_writes_is_read(tmp_path):
    for ending in ('pkl', 'yaml', 'json'):
        path = str(tmp_path / f'x.{ending}')
        mmengine.dump(dict(a=[1, 'b']), path)
        assert mmengine.load(path) == dict(a=[1, 'b'])
