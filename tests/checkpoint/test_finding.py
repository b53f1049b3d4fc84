"""From an address or a name to a local file: downloads, known models, object stores."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch

from mmkd.checkpoint import CheckpointError, finding, read_checkpoint


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
