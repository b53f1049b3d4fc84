"""Scores and seconds of a stage outlive a kill."""

import json
from types import SimpleNamespace

from mmkd.chain import progress
from mmkd.chain.progress import ProgressHook


def test_scores_and_seconds_go_on(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, 'time', lambda: now[0])
    first = ProgressHook(str(tmp_path))
    first.before_train(SimpleNamespace(iter=0))
    now[0] += 7
    first.after_val_epoch(None, dict(top1=50.0, table='text'))
    assert json.loads((tmp_path / 'progress.json').read_text()) == dict(
        scores=dict(top1=50.0), seconds=7.0
    )
    resumed = ProgressHook(str(tmp_path))
    resumed.before_train(SimpleNamespace(iter=3))
    now[0] += 2
    assert resumed.scores == dict(top1=50.0) and resumed.seconds == 9.0
    anew = ProgressHook(str(tmp_path))
    anew.before_train(SimpleNamespace(iter=0))
    assert not anew.scores and anew.seconds == 0.0
