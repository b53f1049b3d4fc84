"""The page and the file of a study whose numbers are known."""

import csv
import io

import pytest

from mmkd.analysis.prediction_cost import PARAMETERS
from mmkd.study.entries import Pair
from mmkd.study.pairing import PairRows
from mmkd.study.picture import picture
from mmkd.study.report import report, screen, table_csv
from mmkd.study.results import PairResults, Result
from mmkd.study.rows import DISTILLED, PLAIN, TEACHER, Row


@pytest.fixture
def pair():
    rows = [
        Row('teacher', 'p', TEACHER, 't.py'),
        Row('plain', 'p', PLAIN, 's.py', {'x': 1}),
        Row('A|B', 'p', DISTILLED, 'a.py', notes=('differs from plain in lr',)),
        Row('C', 'p', DISTILLED, 'c.py', refused='refused: no boxes'),
    ]
    scores = [{0: 0.5}, {0: 0.3, 1: 0.4}, {0: 0.36}, {}]
    results = []
    for row, found in zip(rows, scores, strict=True):
        curves = {seed: {'1': dict(mAP=0.1), '2': dict(mAP=v)} for seed, v in found.items()}
        metrics = {seed: dict(mAP=value) for seed, value in found.items()}
        results.append(Result(row, metrics, curves, problem=row.refused))
    results[2].problem = 'failed: out of luck'
    costs = dict(teacher={PARAMETERS: 4.0}, student={PARAMETERS: 1.0})
    found = PairRows(Pair('p'), rows[0], rows[1], tuple(rows[2:]))
    return PairResults(found, results, 'mAP', 100, costs, ['Measured here.'])


def test_the_page(pair):
    how = dict(command='mmkd study s.py', jobs=2, device='a CPU', left_out=['Short runs: none.'])
    text = report([pair], [0, 1], 'work_dirs/x', how)
    for line in (
        '# x',
        'Made by `mmkd study s.py`.',
        '## p',
        '| teacher | 50.0 | 50.0 |  |  |  |  |  |  |  |  |',
        '| plain | 30.0 / 40.0 | 35.0 ± 7.1 |  |  | 75 % | 30 % |  |  |  |  |',
        '| A\\|B | 36.0 / – (failed: out of luck) | 36.0 | +6.0 | 30 % | 75 % | 28 % | +20.0 % |  |  |  |',
        '| C | refused: no boxes |  |  |  |  |  |  |  |  |  |',
        '| teacher | 4 | n/a | n/a | n/a |',
        '- A|B: differs from plain in lr.',
        'Short runs: none.',
        '![Curves and scores](report.png)',
        'mmkd train s.py --work-dir work_dirs/x/p_plain_s1 --cfg-options randomness.seed=1 x=1',
    ):
        assert line in text.splitlines(), f'{line}\n{text}'
    assert '2 runs at a time, on a CPU' in text and 'c.py' not in text


def test_a_metric_that_is_to_be_low(pair):
    pair.lower, pair.factor = True, 1
    how = dict(command='mmkd study s.py', jobs=1, device='a CPU')
    lines = report([pair], [0, 1], 'work_dirs/x', how).splitlines()
    assert '- Of mAP less is better, so gains are reductions.' in lines
    assert '| plain | 0.300 / 0.400 | 0.350 ± 0.071 |  |  | 75 % | -30 % |  |  |  |  |' in lines
    (one,) = [line for line in lines if line.startswith('| A')]
    assert '| 0.360 | -0.060 |' in one and '-20.0 %' in one
    assert '0.350 ± 0.071' in '\n'.join(screen(pair))


def test_the_screen(pair):
    pair.costs = dict(student={PARAMETERS: 1.0})
    head, teacher, plain, one, refused, _, student = screen(pair)
    assert head.split() == ['p', 'mAP', 'gain', 'of', 'the', 'gap', 'step', 'memory', 'minutes']
    assert teacher.split() == ['teacher', '50.0'] and plain.endswith('  35.0 ± 7.1')
    assert ' '.join(one.split()) == 'A|B 36.0 +6.0 30 % failed: out of luck'
    assert ' '.join(refused.split()) == 'C refused: no boxes'
    end = [line.index(word) + len(word) for line, word in ((head, 'gain'), (one, '+6.0'))]
    assert end[0] == end[1], 'columns end below their heads'
    assert student == 'student: 1 M parameters, n/a G MACs, n/a ms latency, n/a MB file size'


def test_the_csv(pair):
    teacher, plain, one, refused = csv.DictReader(io.StringIO(table_csv([pair], [0, 1], 'w')))
    assert (teacher['seed_0'], teacher['seed_1'], teacher[PARAMETERS]) == ('50', '', '4')
    assert (plain['mean'], plain['std'], plain['parameters_saved']) == ('35', '7.07107', '0.75')
    assert (one['gain'], one['share_of_gap'], one['status']) == ('6', '0.3', 'failed: out of luck')
    assert (refused['status'], refused['command']) == ('refused: no boxes', '')
    assert one['command'].startswith('mmkd train a.py --work-dir w/p_A_B_s0')


def test_a_teacher_that_came_with_weights_has_no_command(pair):
    given = PairRows(Pair('p', 't.py', 't.pth'), *list(pair.rows)[:2], tuple(list(pair.rows)[2:]))
    pair.rows = given
    text = report([pair], [0], 'w', dict(command='', jobs=1, device=''))
    assert 't.py' not in text and 'One seed: no spread.' in text


def test_the_picture(pair):
    found = picture([pair, pair])
    assert found.shape[1] > 900 and (found != 255).any()
    for one in pair.results:
        one.metrics, one.curves = {}, {}
    assert picture([pair]).ndim == 3, 'nothing was trained'
