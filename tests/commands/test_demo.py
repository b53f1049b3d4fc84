"""How ``mmkd demo`` ends."""

from mmkd.commands import demo
from mmkd.study import demo as analysis


def run_with(error, monkeypatch, capsys, out):
    seen = []

    class Demo:
        def __init__(self, *given):
            seen.append(given)

        def run(self):
            if error:
                raise error

    monkeypatch.setattr(analysis, 'Demo', Demo)
    monkeypatch.setattr(analysis, 'say', print)
    try:
        demo.main(['--out', str(out), '--quick', '--seed', '3'])
        status = 0
    except SystemExit as end:
        status = end.code
    return seen, status, ''.join(capsys.readouterr())


def test_three_ways_to_end(monkeypatch, capsys, tmp_path):
    seen, status, _ = run_with(None, monkeypatch, capsys, tmp_path)
    assert seen == [(tmp_path, True, 3)] and status == 0
    _, status, text = run_with(KeyboardInterrupt(), monkeypatch, capsys, tmp_path)
    assert status == 130 and 'The same command' in text
    _, status, text = run_with(ValueError('why'), monkeypatch, capsys, tmp_path)
    assert status == 1 and f'{tmp_path}/*/output.log' in text and 'why' in text
