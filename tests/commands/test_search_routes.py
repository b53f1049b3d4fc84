"""What ``mmkd search_routes`` hands on, and what it writes."""

import json
from pathlib import Path

from mmkd.analysis import routes
from mmkd.commands import search_routes


class Found:
    def text(self):
        return 'the winner'

    def as_dict(self):
        return dict(winner=[0, 1])


def test_a_search(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path('a.py').write_text('x = 1\n')
    calls = []

    def search(config, work_dir, *settings, progress):
        assert Path('new').is_dir(), 'what could not be written is refused before the last round'
        calls.append((work_dir, settings))
        return Found()

    monkeypatch.setattr(routes, 'search_routes', search)
    words = ['a.py', '--epochs', '2', '--hold-out', '0.2', '--rank', 'task', '--out', 'new/r.json']
    search_routes.main(words)
    assert calls == [('work_dirs/a/routes', (2, 0.2, None, 'task', None))]
    assert capsys.readouterr().out == 'the winner\n'
    assert json.loads(Path('new/r.json').read_text()) == dict(winner=[0, 1])
