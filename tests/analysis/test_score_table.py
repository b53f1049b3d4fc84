"""What a comparison looks like: in files, on a terminal, elsewhere."""

import io
import json

from mmkd.analysis.score_table import ON_SCREEN, ScoreTable, show


def filled(classes=1):
    """Two models with scores of classes first, as metrics return them in any order."""
    names = [f'class {k}' for k in range(classes)]
    found = ScoreTable(teachers=1, notes=['Latency: of a clock.'])
    for name, score in (('teacher', 50.0), ('plain', 30.0), ('cwd', 38.25)):
        scores = {**dict.fromkeys(names, score), 'mIoU': score, 'aAcc': 1.5 * score}
        found.add(name, scores, {'MACs (G)': 0.00512, 'latency (ms)': 1234.5}, names)
    return found


def test_metrics_stand_first_then_costs_then_classes():
    rows = filled().cells()
    assert [row[0] for row in rows] == ['', 'mIoU', 'aAcc', 'MACs (G)', 'latency (ms)', 'class 0']
    assert rows[1] == ['mIoU', '50.00', '30.00', '38.25', '+8.25']
    assert [row[0] for row in filled().cells(per_class=False)][1:] == filled().order()[:-1]


def test_costs_have_three_digits_and_no_difference():
    """Students are one network: what differs in their costs is noise of the measurement."""
    found = filled().cells()
    assert found[3] == ['MACs (G)', *['0.00512'] * 3, '']
    assert found[4] == ['latency (ms)', *['1234'] * 3, '']


def test_a_cost_that_only_some_have():
    found = ScoreTable()
    found.add('a', dict(mIoU=1.0))
    found.add('b', dict(mIoU=1.0), {'MACs (G)': 2.0})
    assert found.cells()[2] == ['MACs (G)', 'n/a', '2', '']


def test_files_hold_everything():
    found = filled(classes=100)
    assert found.text().count('| class ') == found.text('.csv').count('class ') == 100
    assert found.text().endswith('\n\nLatency: of a clock.\n')
    read = json.loads(found.text('.json'))
    assert list(read['rows'])[:4] == ['mIoU', 'aAcc', *read['costs']]
    assert read['notes'] == found.notes and len(read['classes']) == 100


def shown(table, terminal=False, **options):
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    show(table, stream=stream, **options)
    return stream.getvalue()


def test_a_long_table_is_shown_without_its_classes():
    short, long = filled(classes=3), filled(classes=ON_SCREEN)
    assert shown(short) == short.text()
    head, end = shown(long).rsplit('\n', 2)[:2]
    assert head + '\n' == long.text(per_class=False)
    assert end == f'{ON_SCREEN} classes are not shown: --per-class shows them, --out writes them.'
    assert shown(long, per_class=True) == long.text()


def test_a_terminal_gets_a_drawn_table(monkeypatch):
    monkeypatch.setenv('TERM', 'xterm')
    monkeypatch.setenv('COLUMNS', '100')
    found = shown(filled(), terminal=True)
    assert '─' in found and '|---' not in found and 'Latency: of a clock.' in found
    row = next(line for line in found.splitlines() if 'mIoU' in line)
    assert row.split() == ['mIoU', '50.00', '30.00', '38.25', '+8.25']


def test_a_table_in_three_forms():
    found = ScoreTable(teachers=1)
    found.add('teacher', dict(sky=90.0, mIoU=50.0))
    found.add('plain', dict(sky=80.0, mIoU=30.0, top1=0.5))
    found.add('cwd', dict(sky=81.5, mIoU=38.25, top1=0.75))
    assert found.text().splitlines()[2:] == [
        '| sky | 90.00 | 80.00 | 81.50 | +1.50 |',
        '| mIoU | 50.00 | 30.00 | 38.25 | +8.25 |',
        '| top1 | n/a | 0.500 | 0.750 | +0.250 |',
    ]
    assert found.text('.csv').splitlines()[0] == ',teacher,plain,cwd,cwd - plain'
    assert json.loads(found.text('.json'))['rows']['top1'] == [None, 0.5, 0.75]


def test_a_difference_with_nothing_is_not_a_number():
    found = ScoreTable()
    found.add('plain', dict(owl=1.0))
    found.add('cwd', dict(elk=2.0))
    assert found.cells()[1:] == [
        ['owl', '1.000', 'n/a', 'n/a'],
        ['elk', 'n/a', '2.00', 'n/a'],
    ]


def test_names_may_hold_any_letters():
    found = ScoreTable(notes=['a note in [brackets]'])
    found.add('[red]x', {'mIoU': 1.0, 'a|b': 1.0}, classes=['a|b'])
    assert found.text().splitlines()[3] == r'| a\|b | 1.000 |'
    text = shown(found, terminal=True)
    assert '[red]x' in text and 'a|b' in text and 'a note in [brackets]' in text


def test_a_table_wider_than_the_terminal_is_whole(monkeypatch):
    monkeypatch.setenv('COLUMNS', '40')
    found = ScoreTable()
    for name in ('plain', 'the_second_student', 'third', 'fourth'):
        found.add(name, {'bbox_mAP_50': 0.5, 'bbox_mAP_75': 0.25})
    text = shown(found, terminal=True)
    for name in ('bbox_mAP_50', 'bbox_mAP_75', 'the_second_student'):
        assert name in text
    assert '…' not in text
