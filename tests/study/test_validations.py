"""Lines for the reader while runs are under way."""

from mmkd.chain.product import write_json
from mmkd.study import validations
from mmkd.study.processes import Task
from mmkd.study.validations import Validations


def test_each_validation_is_told_once(tmp_path, monkeypatch):
    now = iter(range(100, 1000, 60))
    monkeypatch.setattr(validations.time, 'time', lambda: next(now))
    said, task = [], Task('a', (), '')
    heard = Validations(str(tmp_path), said.append)
    heard([task])
    assert said == [], 'nothing was written yet'
    (tmp_path / 'a').mkdir()
    found = dict(unit='epoch', length=8, curve={'2': {'coco/bbox_mAP': 0.25, 'x': 1.0}})
    write_json(str(tmp_path / 'a' / 'measured.json'), found)
    heard([task])
    found['curve']['10'] = {}
    write_json(str(tmp_path / 'a' / 'measured.json'), found)
    heard([task])
    assert [text.partition('   (')[0] for text in said] == [
        'a: epoch 2 of 8  bbox_mAP 0.25',
        'a: epoch 10 of 8',
    ]


def test_files_are_looked_at_every_few_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr(validations.time, 'time', lambda: 1.0)
    monkeypatch.setattr(validations, 'read_json', lambda path: 1 / 0)
    Validations(str(tmp_path), print)([Task('a', (), '')])
