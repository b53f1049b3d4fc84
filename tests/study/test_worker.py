"""What a worker takes from the study beside its job; the jobs themselves run in test_study.py."""

import pytest
from mmengine.config import Config
from study_toys import leave

from mmkd.chain.product import write_json
from mmkd.edits.cheap_convs import CheapConv
from mmkd.study import worker
from mmkd.teacher import build_model


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


def test_costs_are_those_of_the_student_with_its_edits(paths, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(worker, 'costs_of', lambda entries, config: seen.update(entries) or {})
    options = {'model.edits': [dict(type='mmkd.CheapConvs', groups=1)]}
    stage = dict(config=paths['student'], options=options)
    leave(tmp_path, 'kd_s0', dict(kd_s0=stage), 1.0)
    (tmp_path / 'costs').mkdir()
    study = dict(networks=dict(costs=dict(config=stage, student='kd_s0', fingerprint='f')))
    worker.costs(str(tmp_path), 'costs', study)
    assert seen['student'].checkpoint == str(tmp_path / 'kd_s0' / 'epoch_2.pth')
    model = build_model(Config(dict(model=seen['student'].model)))
    assert any(isinstance(module, CheapConv) for module in model.modules())
