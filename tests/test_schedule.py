"""Schedules: how much an objective counts, at every point of a run."""

import math

import pytest

from mmkd.schedule import Progress, Schedule


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
