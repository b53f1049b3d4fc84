"""What a run does before its first step is done once."""

import mmengine.config
import pytest
from recipes import distilled, recipe
from yapf.yapflib import yapf_api

from mmkd.config import _remembered
from mmkd.engine.launch import build_runner, prepare
from mmkd.plan import probe


@pytest.fixture
def counted(monkeypatch):
    """Arguments of each call of what takes long."""
    calls = dict(parsed=[], formatted=[], probed=[])

    def count(owner, name, kind, function, what):
        def call(*args, **kwargs):
            calls[kind].append(what(*args, **kwargs))
            return function(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    stock = getattr(yapf_api.FormatCode, '__wrapped__', yapf_api.FormatCode)

    def format_code(text, **options):
        calls['formatted'].append(len(text))
        return stock(text, **options)

    monkeypatch.setattr(yapf_api, 'FormatCode', _remembered(format_code))
    file = mmengine.config.Config._file2dict
    count(mmengine.config.Config, '_file2dict', 'parsed', file, lambda path, *_, **__: str(path))
    count(
        probe,
        'probe',
        'probed',
        probe.probe,
        lambda _model, _taps, _size=0, training=False: training,
    )
    return calls


@pytest.mark.parametrize('kind', ['frcnn', 'pspnet'])
def test_configs_are_read_and_formatted_and_networks_probed_once(kind, tmp_path, counted):
    model = distilled(kind)
    teacher = mmengine.config.Config(dict(model=model['teacher']['config']))
    teacher.dump(tmp_path / 'teacher.py')
    model['teacher']['config'] = str(tmp_path / 'teacher.py')
    again = dict(model['objectives']) | dict(cwd=dict(type='mmkd.CWD'))
    model['objectives'] = again if kind == 'frcnn' else model['objectives']
    config = recipe(kind, tmp_path / 'data', tmp_path / 'work', model)
    config.dump(tmp_path / 'run.py')
    for calls in counted.values():
        calls.clear()
    config = mmengine.config.Config.fromfile(tmp_path / 'run.py')
    build_runner(prepare(config))
    assert sorted(p.rpartition('/')[2] for p in counted['parsed']) == ['run.py', 'teacher.py']
    assert len(counted['formatted']) == 1, 'for the log, the message hub and the work dir'
    # The student in evaluation and training, the teacher in evaluation.
    assert sorted(counted['probed']) == [False, False, True]
