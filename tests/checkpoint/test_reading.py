"""Checkpoints are read without running code in them, and every refusal is one clear sentence."""

import pickle
import threading
import time
import warnings
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer, MessageHub
from torch import nn

from mmkd.checkpoint import (
    CheckpointError,
    atomic_file,
    find_damage,
    finding,
    read_checkpoint,
    settling,
    stand_ins,
    trust_checkpoints,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'x.pth'


def _contents():
    """Everything mmengine may put into a checkpoint, optimiser and scheduler included."""
    hub = MessageHub('checkpoint_test')
    for step in range(5):
        hub.update_scalar('train/loss', 1.5 - step)
    hub.update_info('iter', 5)
    hub.update_info('score', np.float64(0.25))
    net = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    palette = np.asfortranarray(np.arange(6).reshape(2, 3).astype('>i4'))
    meta = dict(dataset_meta=ConfigDict(classes=('a', 'b'), palette=palette), seed=3, text='ü')
    meta |= dict(flag=np.bool_(True), name=np.str_('n'), empty=np.zeros((0, 4), 'f4'))
    return dict(
        meta=meta,
        state_dict=net.state_dict(),
        message_hub=hub.state_dict(),
        optimizer=dict(optimizer.state_dict(), extra=defaultdict(list, a=[1])),
        param_schedulers=[dict(last_step=3, base_values=[0.1])],
    )


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('trust', [True, False])
def test_what_mmengine_writes_is_read(path, zipped, trust):
    wanted = _contents()
    torch.save(wanted, path, _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(path, trust=trust)
    history = found['message_hub']['log_scalars']['train/loss']
    assert isinstance(history, HistoryBuffer)
    assert history.mean() == wanted['message_hub']['log_scalars']['train/loss'].mean() == -0.5
    history.update(4.0)
    assert history.current() == 4.0
    palette = found['meta']['dataset_meta']['palette']
    assert palette.tolist() == [[0, 1, 2], [3, 4, 5]] and palette.dtype == '>i4'
    assert palette.flags.writeable and palette.flags.f_contiguous
    assert found['meta']['flag'] == np.bool_(True) and found['meta']['name'] == 'n'
    assert found['meta']['empty'].shape == (0, 4)
    assert found['message_hub']['runtime_info']['score'] == 0.25
    assert found['optimizer']['extra'] == dict(a=[1])
    for key, value in wanted['state_dict'].items():
        assert torch.equal(found['state_dict'][key], value)


@pytest.mark.parametrize('old', ['numpy.core.multiarray', 'numpy._core.multiarray'])
def test_both_names_of_numpy(path, old):
    """NumPy 2 renamed the module that its pickles mention; the file may be of either time."""
    core = np.ones(2).__reduce__()[0].__module__
    text = pickle.dumps(dict(a=np.ones(2), b=np.float32(3)), protocol=2)
    text = text.replace(core.encode(), old.encode())
    with (
        torch.serialization.safe_globals([(v, k) for k, v in stand_ins.STAND_INS.items()]),
        open(path, 'wb+') as file,
    ):
        file.write(text)
        file.seek(0)
        loaded = torch._weights_only_unpickler.load(file)
    loaded = settling.settle(loaded, 10**6)
    assert loaded['a'].tolist() == [1, 1] and loaded['b'] == 3


class Evil:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    'evil, name',
    [
        (Evil(eval, '1 + 1'), 'eval'),
        (Evil(getattr, HistoryBuffer, '__init__'), 'getattr'),
        (Evil(getattr, 'text', 'upper'), 'getattr'),
        (Evil(print, 'boo'), 'print'),
        (np.array([None, 'x'], dtype=object), 'numpy'),
        (np.zeros(2, dtype=[('a', 'f4')]), 'numpy.dtype'),
        (nn.Linear(1, 1), 'torch.nn.modules.linear.Linear'),
    ],
    ids=['eval', 'method', 'getattr', 'print', 'objects', 'structured', 'module'],
)
def test_whatever_could_run_code_is_refused(path, evil, name):
    torch.save(dict(state_dict=dict(a=torch.ones(1)), meta=evil), path)
    with pytest.raises(CheckpointError, match=f'{name}.*--trust-checkpoint'):
        read_checkpoint(path)


def test_memory_cannot_be_forged(path):
    """NumPy lets a pickle relabel object pointers as plain bytes; our stand-in does not."""

    class Forged:
        def __reduce__(self):
            return np.dtype, ('O', False, True), (3, '|', None, None, None, -1, -1, 0)

    class Array:
        def __reduce__(self):
            start = np.zeros(1).__reduce__()
            return start[0], start[1], (1, (1,), Forged(), False, b'\x08' * 8)

    torch.save(dict(a=Array()), path)
    with pytest.raises(CheckpointError, match='numpy.dtype'):
        read_checkpoint(path)


def test_statistics_of_a_file_do_not_replace_ours(path):
    methods = dict(HistoryBuffer._statistics_methods)
    real = HistoryBuffer([1.0], [1])
    real._statistics_methods = dict(methods, mean='harmless text')
    torch.save(dict(a=real), path)
    read_checkpoint(path)
    assert HistoryBuffer._statistics_methods == methods


def test_trust(path):
    torch.save(dict(state_dict=nn.Linear(1, 1)), path)
    assert isinstance(read_checkpoint(path, trust=True)['state_dict'], nn.Linear)
    trust_checkpoints()
    try:
        assert isinstance(read_checkpoint(path)['state_dict'], nn.Linear)
    finally:
        trust_checkpoints(False)
    with pytest.raises(CheckpointError, match='refused'):
        read_checkpoint(path)


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


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('part', [0.02, 0.5, 0.99])
def test_truncated(path, zipped, part):
    torch.save(dict(a=torch.rand(1000)), path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(CheckpointError, match='truncated|damaged'):
        read_checkpoint(path)


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


def test_not_a_mapping(path):
    torch.save(torch.ones(2), path)
    with pytest.raises(CheckpointError, match='holds a Tensor'):
        read_checkpoint(path)


def test_other_archives(path):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.jit.script(nn.Linear(1, 1)).save(str(path))
    with pytest.raises(CheckpointError, match='TorchScript'):
        read_checkpoint(path)


# ---------------------------------------------------------------------------------------- download


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    return tmp_path / 'checkpoints'


def test_offline(hub, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError('no route to host')

    monkeypatch.setattr(finding, 'download_url_to_file', fail)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint('https://example.org/some/net-0123abcd.pth')
    text = str(caught.value)
    assert 'could not download https://example.org/some/net-0123abcd.pth' in text
    assert 'no route to host' in text and str(hub / 'net-0123abcd.pth') in text
    assert 'checkpoint= to a local file' in text


@pytest.mark.parametrize(
    'url, sha',
    [
        ('https://example.org/net-0123abcd.pth', '0123abcd'),
        ('https://example.org/net.pth', None),
        ('https://example.org/third_party/net-0123abcd.pth', None),
    ],
)
def test_download_once_and_check(hub, monkeypatch, url, sha):
    calls = []

    def download(source, target, hash_prefix, progress):
        calls.append((source, hash_prefix))
        torch.save(dict(a=torch.ones(1)), target)

    monkeypatch.setattr(finding, 'download_url_to_file', download)
    for _ in range(2):
        assert read_checkpoint(url)['a'] == 1
    assert calls == [(url, sha)]


def test_processes_of_a_machine_wait_for_the_first(hub, monkeypatch):
    """Whichever comes first fetches; the others may come at any time."""
    calls, begun = [], threading.Event()

    def download(source, target, *args, **kwargs):
        calls.append(source)
        begun.set()
        time.sleep(0.2)
        torch.save(dict(a=torch.ones(1)), target)

    monkeypatch.setattr(finding, 'download_url_to_file', download)
    with ThreadPoolExecutor(2) as pool:
        url = 'https://example.org/net.pth'
        first = pool.submit(read_checkpoint, url)
        begun.wait(10)
        second = pool.submit(read_checkpoint, url)
        assert first.result()['a'] == second.result()['a'] == 1
    assert len(calls) == 1 and [p.name for p in hub.iterdir()] == ['net.pth']


def test_model_names(hub, monkeypatch):
    seen = []
    monkeypatch.setattr(finding, '_download', lambda url: seen.append(url) or 'nowhere')
    with pytest.raises(FileNotFoundError):
        read_checkpoint('open-mmlab://detectron2/resnet50_caffe')
    assert seen[0].startswith('https://') and seen[0].endswith('.pth')
    with pytest.raises(CheckpointError, match='not a known model'):
        read_checkpoint('open-mmlab://resnet5000')
    with pytest.raises(CheckpointError, match='expected a local file'):
        read_checkpoint('ftp://host/net.pth')


def test_object_store(path, monkeypatch):
    class Store:
        @contextmanager
        def get_local_path(self, source):
            assert source == 's3://bucket/x.pth'
            yield path

    torch.save(dict(a=torch.ones(1)), path)
    with pytest.raises(CheckpointError, match='cannot be looked up.*petrel'):
        read_checkpoint('s3://bucket/x.pth')
    monkeypatch.setattr(finding, 'get_file_backend', lambda *args, **kwargs: Store())
    assert read_checkpoint('s3://bucket/x.pth')['a'] == 1


# ----------------------------------------------------------------------------------------- writing


def test_atomic_file(path):
    path.write_text('old')
    with pytest.raises(RuntimeError), atomic_file(str(path)) as part:
        Path(part).write_text('ne')
        raise RuntimeError
    assert path.read_text() == 'old'
    with atomic_file(str(path)) as part:
        Path(part).write_text('new')
        assert path.read_text() == 'old'
    assert path.read_text() == 'new'
    assert list(path.parent.iterdir()) == [path]


def test_history_of_a_fresh_process_can_be_averaged(tmp_path):
    path = tmp_path / 'hub.pth'
    buffer = HistoryBuffer([1.0, 3.0], [1, 1])
    torch.save(dict(state_dict={'w': torch.zeros(1)}, message_hub={'loss': buffer}), path)
    HistoryBuffer._statistics_methods.clear()  # as before the first buffer of a process
    loaded = read_checkpoint(path)['message_hub']['loss']
    assert loaded.statistics('mean') == 2.0
