"""What ``mmkd compare`` refuses before the first test, and where it writes."""

from pathlib import Path

import pytest

from mmkd.analysis import comparison
from mmkd.analysis.score_table import ScoreTable
from mmkd.commands import compare


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'a.py').write_text('x = 1\n')
    return 'a.py'


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        (['--out', 'table.pdf'], 'table.pdf'),
        (['--out', 'a.py/table.md'], 'a.py is no folder'),
        (['--show', '-1'], '--show must be a whole number of at least 0'),
        (['--score-thr', '-0.1'], '--score-thr must be'),
        (['--student', 'x.pth'], 'takes NAME=CHECKPOINT'),
        (['--student', 'a=x.pth', '--student', 'a=y.pth'], "two students 'a'"),
    ],
)
def test_bad_arguments(config, words, said, monkeypatch, capsys):
    monkeypatch.setattr(comparison, 'compare', lambda *given: pytest.fail('it was scored'))
    with pytest.raises(SystemExit) as end:
        compare.main([config, *words])
    assert end.value.code == 1 and said in capsys.readouterr().err


def test_the_table_is_printed_and_written(config, monkeypatch, capsys):
    calls = []

    def scored(config, students, work_dir, *visit):
        calls.append((students, work_dir, len(visit)))
        table = ScoreTable(teachers=0, notes=[])
        table.add('one', dict(mAP=0.5), None, [])
        return table

    monkeypatch.setattr(comparison, 'compare', scored)
    compare.main([config, '--student', 'one=x.pth', '--out', 'new/table.csv', '--verbose'])
    assert calls == [(dict(one='x.pth'), 'work_dirs/a/compare', 0)]
    assert 'mAP' in capsys.readouterr().out
    assert 'mAP' in Path('new/table.csv').read_text()
