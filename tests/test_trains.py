"""Who trains in a run, and in which steps."""

import pytest

from mmkd.schedule import Progress
from mmkd.trains import PLAYERS, Trains


def steps(trains, player, total=9):
    return [int(trains(player, Progress(i, total))) for i in range(total)]


def test_names_of_players():
    for entry in ('objectives', ['Objectives'], ('objectives',), dict(objectives={})):
        trains = Trains.of(entry)
        assert 'objectives' in trains and 'student' not in trains
        assert steps(trains, 'objectives', 3) == [1, 1, 1] and steps(trains, 'student', 2) == [0, 0]
        assert not trains.in_turns and str(trains) == 'objectives'
    assert Trains.of(trains) is trains
    assert list(Trains.of(PLAYERS).turns) == list(PLAYERS)


def test_turns():
    """[V] procedures2 A.9 (1)."""
    trains = Trains.of(dict(student=dict(every=6, count=5), objectives=dict(every=6, first=5)))
    assert steps(trains, 'student') == [1, 1, 1, 1, 1, 0, 1, 1, 1]
    assert steps(trains, 'objectives') == [0, 0, 0, 0, 0, 1, 0, 0, 0]
    assert trains.in_turns
    assert str(trains) == 'student in steps 0 to 4 of 6, objectives in step 5 of 6'
    trains.check({'student', 'objectives'})
    assert not Trains.of(dict(student=True, objectives=dict(every=1))).in_turns


def test_turns_count_steps_of_the_optimiser():
    trains = Trains.of(dict(student=dict(every=2), objectives=dict(every=2, first=1)))
    assert [trains('student', Progress(i, 8, 2)) for i in range(5)] == [1, 1, 0, 0, 1]


@pytest.mark.parametrize('entry', [None, 3, {'student'}])
def test_what_is_neither_names_nor_turns(entry):
    with pytest.raises(TypeError, match='trains must be names of student, objectives, peers, or'):
        Trains.of(entry)


def test_unknown_players_and_turns():
    with pytest.raises(ValueError, match="nobody is called 'critic'; there are student, obj"):
        Trains.of('critic')
    with pytest.raises(ValueError, match="Did you mean 'student'"):
        Trains.of(['studnt'])
    with pytest.raises(ValueError, match='trains is empty: nobody trains'):
        Trains.of(())
    with pytest.raises(TypeError, match='the turns of student must be a mapping'):
        Trains.of(dict(student=5))
    with pytest.raises(
        TypeError, match='trains: student has no option everry; it has every, first'
    ):
        Trains.of(dict(student=dict(everry=5)))
    with pytest.raises(ValueError, match='trains: student: first=0 and count=3 do not fit'):
        Trains.of(dict(student=dict(every=2, count=3)))


def test_somebody_trains_in_every_step():
    gap = Trains.of(dict(student=dict(every=3), objectives=dict(every=2)))
    with pytest.raises(ValueError, match='nobody trains in step 1 of every 6: student in step 0'):
        gap.check({'student', 'objectives'})
    with pytest.raises(
        ValueError, match='nobody trains in step 1 of every 3: student in step 0 of'
    ):
        gap.check({'student'})
    for able in (set(), {'student'}):
        with pytest.raises(ValueError, match='nobody of objectives has parameters to train'):
            Trains.of('objectives').check(able)
    Trains.of(('student', 'peers')).check({'student'})
