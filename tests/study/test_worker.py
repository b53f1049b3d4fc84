"""What a worker takes from the study beside its job; the jobs themselves run in test_study.py."""

import pytest

from mmkd.chain.product import write_json
from mmkd.study import worker


@pytest.mark.parametrize('on', [False, True])
def test_precision_and_trust(tmp_path, monkeypatch, on):
    calls = []

    class Chain:
        def __init__(self, stages, work_dir, amp):
            calls.append((stages, amp))

        def run(self, only, hooks):
            calls.append((only, [type(hook) for hook in hooks(None)]))

    monkeypatch.setattr(worker, 'Chain', Chain)
    monkeypatch.setattr(worker, 'trust_checkpoints', lambda: calls.append('trusted'))
    study = dict(runs=dict(a='stages'), amp=on, trust=on)
    write_json(str(tmp_path / 'study.json'), study)
    worker.main([str(tmp_path), 'train', 'a'])
    assert calls == ['trusted'] * on + [('stages', on), ('a', [worker.MeasureHook])]
