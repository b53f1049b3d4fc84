"""What ``mmkd test`` hands on."""

import pytest

from mmkd.commands import test as command
from mmkd.engine import launch


def test_config_checkpoint_and_options(tmp_path, monkeypatch):
    (tmp_path / 'a.py').write_text('x = 1\n')
    calls = []
    monkeypatch.setattr(
        launch, 'test', lambda config, *rest, **options: calls.append((config.x, rest, options))
    )
    words = [str(tmp_path / 'a.py'), 'b.pth', '--verbose', '--ignore-keys', '^head', '^neck']
    command.main([*words, '--work-dir', 'mine', '--cfg-options', 'x=2'])
    options = dict(hooks=[], work_dir='mine', ignore_keys=['^head', '^neck'], who='student')
    assert calls == [(2, ('b.pth',), options)]
    command.main([*words, '--who', 'peers.other'])
    assert calls[1][2]['who'] == 'peers.other'


def test_a_checkpoint_is_needed(capsys):
    with pytest.raises(SystemExit) as end:
        command.main(['a.py'])
    assert end.value.code == 2 and 'required: checkpoint' in capsys.readouterr().err
