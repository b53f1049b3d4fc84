"""Schedules: how much an objective counts, at every point of a run."""

import math

import pytest
from mmengine.logging import MessageHub

from mmkd.schedule import ACCUMULATION, Progress, Schedule, read_number


def weights(total=10, **points):
    schedule = Schedule(**points)
    return [round(schedule(Progress(i, total)), 6) for i in range(total)]


def test_a_number_is_constant():
    assert weights(value=2) == [2] * 10
    assert Schedule.of(0.5)(0.99) == 0.5
    assert Schedule.of(Schedule(3)) == Schedule(3)


def test_start_is_off_before_in_iterations_or_fractions():
    assert weights(value=2, start=4) == weights(value=2, start=0.4) == [0] * 4 + [2] * 6


def test_warmup_rises_linearly():
    assert weights(value=2, warmup=4) == [0, 0.5, 1, 1.5] + [2] * 6
    assert weights(value=2, start=2, warmup=0.2) == [0, 0, 0, 1] + [2] * 6


def test_decay_falls_from_the_end_of_the_warmup_to_the_stop():
    assert weights(decay='linear') == [round(1 - i / 10, 6) for i in range(10)]
    assert weights(decay='linear', warmup=2, end_value=0.2)[2:4] == [1, 0.9]
    cosine = [round(0.5 * (1 + math.cos(math.pi * i / 5)), 6) for i in range(5)]
    assert weights(decay='cosine', stop=5) == cosine + [0] * 5


def test_stop_ends_it():
    assert weights(stop=0.5) == weights(stop=5) == [1] * 5 + [0] * 5
    assert weights(stop=1.0) == weights(stop=10) == [1] * 10


def test_fractions_need_no_length_but_iterations_do():
    assert Schedule(start=0.5)(0.4) == 0
    with pytest.raises(ValueError, match='length of the run is not known'):
        Schedule(start=400)(0.5)


@pytest.mark.parametrize('weight', [-1, float('nan'), float('inf'), -1e-9])
def test_negative_and_non_finite_weights_are_refused(weight):
    with pytest.raises(ValueError, match='must be a finite number of at least 0'):
        Schedule.of(weight)
    with pytest.raises(ValueError, match='value must be a finite'):
        Schedule.of(dict(value=weight))


@pytest.mark.parametrize('weight', ['1', True, None, [1], dict(value='1')])
def test_what_is_no_number_is_refused(weight):
    with pytest.raises(ValueError, match='must be a finite number'):
        Schedule.of(weight)


def test_unknown_points_are_answered_with_those_there_are():
    with pytest.raises(TypeError, match="it has value, start, warmup.*Did you mean 'warmup'"):
        Schedule.of(dict(value=1, warm_up=3))
    with pytest.raises(ValueError, match='decay must be one of'):
        Schedule(decay='exp')
    with pytest.raises(ValueError, match='write the integer 400'):
        Schedule(start=400.0)
    with pytest.raises(ValueError, match='end_value needs'):
        Schedule(end_value=0.1)


def test_zero_at_every_moment():
    assert Schedule.of(0).is_zero
    assert not Schedule(0, decay='linear', end_value=1.0).is_zero
    assert Schedule(0, decay='linear', end_value=1.0)(0.5) == 0.5


def test_whether_it_counts_in_a_run():
    for weight in (1.0, dict(start=9), dict(start=0.9), dict(start=5, warmup=0.5), dict(stop=1)):
        assert Schedule.of(weight).counts(10), weight
    for weight in (0, dict(start=10), dict(start=400), dict(start=1.0), dict(start=5, stop=5)):
        assert not Schedule.of(weight).counts(10), weight
    late = Schedule(0, decay='linear', end_value=1.0, start=8)
    assert late.counts(10) and not late.counts(8)


def test_progress_reads_the_running_loop(running):
    assert Progress.current() == 0 and Progress.current().total == 1
    running(25, 100)
    now = Progress.current()
    assert (now, now.iteration, now.total) == (0.25, 25, 100)


def test_text_names_what_differs_from_a_constant():
    assert str(Schedule(0.01, start=400)) == '0.01, start 400'
    assert str(Schedule(2)) == '2'


def test_turns_of_so_many_steps():
    """[V] procedures2 A.9 (1)."""
    assert weights(9, every=6, count=5) == [1, 1, 1, 1, 1, 0, 1, 1, 1]
    assert weights(9, every=6, first=5) == [0, 0, 0, 0, 0, 1, 0, 0, 0]
    assert weights(9, every=3, start=4) == [0, 0, 0, 0, 0, 0, 1, 0, 0]


def test_turns_count_steps_of_the_optimiser(running):
    steps = [Progress(i, 8, 2).step for i in range(5)]
    assert steps == [0, 0, 1, 1, 2]
    schedule = Schedule(every=2, first=1)
    assert [schedule(Progress(i, 8, 2)) for i in range(8)] == [0, 0, 1, 1, 0, 0, 1, 1]
    running(5, 8)
    assert Progress.current().step == 5
    MessageHub.get_current_instance().update_info(ACCUMULATION, 2)
    assert Progress.current().step == 2 and Progress.current().accumulated == 2
    with pytest.raises(ValueError, match='the step is not known'):
        schedule(0.5)


@pytest.mark.parametrize(
    'turn', [dict(every=0), dict(first=-1), dict(every=2, count=0), dict(every=1.5)]
)
def test_turns_are_whole_numbers(turn):
    with pytest.raises(ValueError, match='must be a whole number of at least'):
        Schedule(**turn)


@pytest.mark.parametrize('turn', [dict(first=1), dict(every=3, first=2, count=2), dict(count=2)])
def test_turns_fit_into_their_period(turn):
    with pytest.raises(ValueError, match='do not fit into every=[13] steps'):
        Schedule.of(turn)


def test_whether_turns_count_in_a_run():
    assert Schedule(every=20, first=9).counts(10)
    assert not Schedule(every=20, first=10).counts(10)
    assert Schedule(every=7, first=6, start=8).counts(14)
    assert not Schedule(every=7, first=6, start=8).counts(13)
    assert not Schedule(every=20, first=5).counts(10, accumulated=2)
    assert Schedule(every=20, first=4).counts(10, accumulated=2)


def test_a_number_is_never_off():
    """EnDD's temperature: constant, then linear."""
    points = dict(value=10, start=2, decay='linear', end_value=1, stop=8)
    schedule = read_number('EnDD: tau', points)
    values = [schedule.number(Progress(i, 10)) for i in range(10)]
    assert values == pytest.approx([10, 10, 10, 8.5, 7, 5.5, 4, 2.5, 1, 1])
    rising = Schedule(1, decay='cosine', end_value=3)
    assert rising.number(0.5) == pytest.approx(2)
    assert Schedule(2, start=0.5).number(0.1) == 2
    assert schedule.moves(10) and not schedule.moves(3)
    assert not read_number('KD: tau', dict(value=4)).moves(10)


def test_what_only_a_weight_has_is_refused_for_a_number():
    for points in (dict(warmup=0.1), dict(every=2)):
        with pytest.raises(ValueError, match='KD: tau is never off, so it has no warmup'):
            read_number('KD: tau', dict(value=1, **points))
    with pytest.raises(ValueError, match='KD: tau must be a finite number, or dict'):
        read_number('KD: tau', dict(end_value=1))
    with pytest.raises(ValueError, match='KD: tau: end_value needs decay'):
        read_number('KD: tau', dict(value=1, end_value=2))
    with pytest.raises(TypeError, match='KD: tau has no option ending.*it has value, start'):
        read_number('KD: tau', dict(value=1, ending=2))
