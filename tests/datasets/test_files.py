"""What keeps a file from being read, in words."""

import os

import pytest

from mmkd.datasets import protection
from mmkd.datasets._files import fault, is_remote, shown, similar


@pytest.mark.parametrize('kind', ['fifo', 'device', 'directory', 'broken link'])
@pytest.mark.parametrize('name', ['coco', 'voc', 'voc xml'])
def test_what_is_no_file_is_not_read(data, kind, name):
    root, config = data(name.split()[0])
    path = root / config['ann_file']
    if name == 'voc xml':
        path = root / 'VOC2007/Annotations/000002.xml'
    path.unlink()
    if kind == 'fifo':
        os.mkfifo(path)
    elif kind == 'directory':
        path.mkdir()
    else:
        path.symlink_to('/dev/zero' if kind == 'device' else root / 'nowhere')
    with pytest.raises(OSError, match=path.name):
        protection.check_paths(config)
    metric = {'type': 'CocoMetric', 'ann_file': str(path)}
    with pytest.raises(OSError, match='CocoMetric'):
        protection.check_evaluator(metric)


def test_file_without_permission(data, monkeypatch):
    root, config = data('coco')
    monkeypatch.setattr(os, 'access', lambda path, mode: not str(path).endswith('train.json'))
    with pytest.raises(OSError, match=r'train\.json cannot be read: permission'):
        protection.check_paths(config)


def test_faults_in_words(tmp_path):
    good, empty = tmp_path / 'good', tmp_path / 'empty'
    good.write_text('x')
    empty.touch()
    (tmp_path / 'link').symlink_to('nowhere')
    assert fault(str(good)) == ''
    assert fault(str(tmp_path / 'gone')) == 'no such file'
    assert fault(str(tmp_path)) == 'it is a directory'
    assert fault(str(empty)) == 'the file is empty'
    assert fault(str(tmp_path / 'link')) == 'it is a link to nowhere, which does not exist'
    assert 'pipe, not a regular file' in fault('/dev/null')
    assert fault('a' * 300) == 'File name too long' and fault('a\0b') == 'embedded null byte'


def test_files_of_nearly_that_name(tmp_path):
    (tmp_path / 'Image.PNG').touch()
    assert similar(str(tmp_path / 'image.jpg')) == ' (there is Image.PNG)'
    assert similar(str(tmp_path / 'other.jpg')) == similar(str(tmp_path / 'no/x.jpg')) == ''
    assert 'backslashes' in similar('a\\b.jpg')


@pytest.mark.parametrize(
    ('path', 'config', 'remote'),
    [
        ('a.json', {}, False),
        ('s3://bucket/a.json', {}, True),
        ('a.json', dict(backend_args=dict(backend='petrel')), True),
        ('a.json', dict(backend_args=dict(backend='local')), False),
        ('a.json', dict(file_client_args=dict(backend='disk')), False),
        ('a.json', dict(file_client_args=dict(backend='lmdb')), True),
    ],
)
def test_what_the_local_disk_reads(path, config, remote):
    assert is_remote(path, config) == remote


def test_long_lists_are_cut():
    assert shown('abc') == 'a, b, c'
    assert shown('abc', 2) == 'a, b, and 1 more'
    assert shown([], 2) == ''
