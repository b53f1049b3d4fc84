"""Short runs that choose methods, without the runs; one real probe is in test_study.py."""

import math

import pytest
from study_toys import FakeStart

from mmkd.study.entries import Search
from mmkd.study.halving import rounds_of, search
from mmkd.study.processes import run_all
from mmkd.study.rows import DISTILLED, Row


@pytest.mark.parametrize(
    ('count', 'keep', 'rounds'),
    [(5, 1, [5, 3, 2]), (5, 2, [5, 3]), (4, 3, [4]), (2, 2, []), (1, 1, [])],
)
def test_rounds(count, keep, rounds):
    assert rounds_of(count, keep) == rounds


@pytest.fixture
def rows(paths):
    return [Row(name, '', DISTILLED, paths['student']) for name in 'abc'] + [
        Row('d', '', DISTILLED, paths['student'], refused='refused: no')
    ]


def searched(rows, work_dir, start, **options):
    from mmkd.chain.product import write_json

    def run_tasks(tasks, more):
        write_json(f'{work_dir}/study.json', more)
        return run_all(tasks, 2, start, lambda text: None)

    return search(rows, Search(**options), 0, str(work_dir), run_tasks)


def test_the_better_half_goes_on(rows, tmp_path):
    start = FakeStart(dict(a=2.0, b=1.0, c=3.0))
    found, lines = searched(rows, tmp_path, start)
    assert [row.refused for row in found] == [
        'left out after 2 epochs of short runs',
        '',
        'left out after 1 epoch of short runs',
        'refused: no',
    ]
    assert [name for _, name in start.calls] == ['a_e1', 'b_e1', 'c_e1', 'b_e2', 'a_e2']
    assert '| 1 | 1 | b | 1.0000 |' in lines and lines[0].startswith('Short runs on 90% of')


def test_probes_are_kept_until_something_changes(rows, tmp_path):
    scores = dict(a=2.0, b=1.0, c=3.0)
    searched(rows, tmp_path, FakeStart(scores))
    again, longer = FakeStart(scores), FakeStart(scores)
    searched(rows, tmp_path, again)
    searched(rows, tmp_path, longer, hold_out=0.2)
    assert (len(again.calls), len(longer.calls)) == (0, 5)


def test_a_probe_that_fails_loses(rows, tmp_path):
    start = FakeStart(dict(a=2.0, b=1.0, c=3.0), bad=('b_e1', 'c_e1'))
    found, lines = searched(rows, tmp_path, start, keep=2)
    assert [bool(row.refused) for row in found] == [False, True, True, True]
    assert '| 1 | 1 | b | diverged or failed |' in lines


def test_nothing_to_choose_from(rows, tmp_path):
    assert searched(rows, tmp_path, None, keep=3) == (rows, [])


def test_probes_that_all_fail_end_the_search(rows, tmp_path):
    start = FakeStart({}, bad=('a_e1', 'b_e1', 'c_e1'))
    with pytest.raises(ValueError, match='all 3 short runs of 1 epochs failed, .*: out of luck'):
        searched(rows, tmp_path, start)


def test_probes_that_all_diverge_end_the_search(rows, tmp_path):
    """Every method was left out, and the study trained the plain student alone."""
    start = FakeStart(dict.fromkeys('abc', math.inf))
    with pytest.raises(ValueError, match='all 3 short runs of 1 epochs failed or diverged'):
        searched(rows, tmp_path, start)
