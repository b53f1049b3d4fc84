"""A clean audit is kept between runs, and only for files that are as they were."""

import json
import os
import shutil

import pytest
from spoiling import build

from mmkd.datasets import _audit, _audit_cache, protection
from mmkd.datasets._kinds import leaves


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('MMKD_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache' / 'audits'


@pytest.fixture
def looked(monkeypatch):
    """The image files that audits look at."""
    paths, fault = [], _audit.fault
    monkeypatch.setattr(_audit, 'fault', lambda path: paths.append(path) or fault(path))
    return paths


@pytest.fixture
def make(data):
    """``make(kind)`` is (folder, function that builds the dataset as a run does)."""

    def of(kind='coco'):
        root, config = data(kind)
        config = {**config, 'serialize_data': True}
        return root, lambda **changes: build({**config, **changes})

    return of


def audited(dataset):
    (report,) = protection.protect(dataset)
    return report


def test_a_tilde_is_the_home(monkeypatch, tmp_path):
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv('MMKD_CACHE', '~/kept')
    assert _audit_cache.folder() == tmp_path / 'kept' / 'audits'


@pytest.mark.parametrize('kind', ['coco', 'voc', 'cityscapes'])
def test_a_second_run_reads_nothing_and_finds_the_same(kind, make, cache, looked, log):
    _, dataset = make(kind)
    first, one = audited(dataset()), len(looked)
    again = dataset()
    second = audited(again)
    assert first == second and one > 0 and len(looked) == one
    assert 'files as at the last audit' in log.text
    assert len([*cache.iterdir()]) == 1
    if kind == 'coco':
        assert all(leaf.numbered_as for leaf in leaves(again)), 'what an audit finds out besides'


def test_other_annotations_settings_and_files_are_audited(make, cache, looked):
    root, dataset = make()
    audited(dataset())
    image = next((root / 'train').iterdir())
    path = root / 'annotations' / 'train.json'

    def annotate():
        content = json.loads(path.read_text())
        content['annotations'][0]['bbox'][2] += 1
        path.write_text(json.dumps(content))

    def replace():
        image.write_bytes(image.read_bytes() + b' ')

    def add():
        shutil.copy(image, root / 'train' / 'other.png')

    for change in (annotate, replace, add, lambda: os.utime(path, (1, 1))):
        change()
        looked.clear()
        audited(dataset())
        assert looked, change
        looked.clear()
        audited(dataset())
        assert not looked, change
    audited(dataset(test_mode=True))
    assert looked


def test_a_complaint_is_made_in_every_run(make, cache, looked, log):
    root, dataset = make()
    next((root / 'train').iterdir()).unlink()
    for _ in range(2):
        log.clear()
        looked.clear()
        report = audited(dataset())
        assert looked and not report.clean and 'cannot be read' in log.text
    assert not cache.exists()


@pytest.mark.parametrize(
    'damage',
    [
        lambda text: '',
        lambda text: text[:-20],
        lambda text: text.replace('"images": ', '"images": 1'),
        lambda text: 'no digest',
        lambda text: f'{_audit_cache._digest("[]")}\n[]',
        lambda text: f'{_audit_cache._digest("{}")}\n{{}}',
    ],
)
def test_a_damaged_file_is_not_believed(make, cache, looked, damage):
    _, dataset = make()
    first = audited(dataset())
    (file,) = cache.iterdir()
    file.write_text(damage(file.read_text()))
    looked.clear()
    assert audited(dataset()) == first and looked


def test_bytes_that_are_no_text(make, cache, looked):
    _, dataset = make()
    audited(dataset())
    (file,) = cache.iterdir()
    file.write_bytes(b'\xff\xfe\x00')
    looked.clear()
    audited(dataset())
    assert looked


def test_where_nothing_can_be_written_audits_go_on(make, monkeypatch, tmp_path, looked):
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('MMKD_CACHE', str(tmp_path / 'file'))
    _, dataset = make()
    assert audited(dataset()) == audited(dataset()) and looked


def test_the_folder_is_the_users_and_can_be_switched_off(monkeypatch, tmp_path, make, looked):
    monkeypatch.setenv('MMKD_CACHE', 'off')
    assert _audit_cache.folder() is None
    _, dataset = make()
    audited(dataset())
    count = len(looked)
    audited(dataset())
    assert len(looked) == 2 * count
    monkeypatch.delenv('MMKD_CACHE')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    assert _audit_cache.folder() == tmp_path / 'mmkd' / 'audits'
    monkeypatch.delenv('XDG_CACHE_HOME')
    monkeypatch.setenv('HOME', '/home/me')
    assert str(_audit_cache.folder()) == '/home/me/.cache/mmkd/audits'


def test_the_oldest_files_go(make, cache, monkeypatch):
    monkeypatch.setattr(_audit_cache, 'KEPT', 2)
    _, dataset = make()
    for name in 'abc':
        audited(dataset(metainfo=dict(dataset().metainfo, note=name)))
    assert len([*cache.glob('*.json')]) == 2


def test_annotations_that_are_no_bytes_are_not_kept(data, cache):
    _, config = data('coco')
    audited(build(config))
    assert not cache.exists()
