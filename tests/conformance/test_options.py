"""What every registered objective owes whoever configures it: nonsense is refused, by name."""

import pytest
from cases import method

from mmkd.building import build_objective
from mmkd.methods import names
from mmkd.options import options_of

NEVER_NUMBERS = (float('nan'), float('inf'), float('-inf'), 'abc', '0.5', True, [1], {}, 10**400)


def declared(cls, kind):
    """Options that a class declares as ``kind``, alone or as one of several."""
    return [
        name
        for name, parameter in options_of(cls).items()
        if kind in str(parameter.annotation).split(' | ')
    ]


@pytest.mark.parametrize('name', names())
def test_numeric_options_take_numbers_only(name):
    cls = method(name)
    whole = declared(cls, 'int')
    for option in {*whole, *declared(cls, 'float')}:
        for value in (*NEVER_NUMBERS, *([1.5] if option in whole else [])):
            with pytest.raises(ValueError, match=f'{option}.* must be (a finite|a whole|one of)'):
                cls(**{option: value})


@pytest.mark.parametrize('name', names())
def test_who_learns_from_whom_arrives(name):
    cls = method(name)
    assert cls(learner='other').learner == 'other'
    if cls.needs_teacher:
        judges = ['student', 'third'] if cls.many_teachers else ['student']
        assert cls(learner='other', teacher_name=judges).teacher_names == tuple(judges)


@pytest.mark.parametrize('name', names())
def test_flags_are_true_or_false(name):
    cls = method(name)
    for option in declared(cls, 'bool'):
        for value in ('False', 0, 1.0, []):
            with pytest.raises(ValueError, match=f'{option} must be True or False'):
                build_objective({'type': f'mmkd.{name}', option: value})


@pytest.mark.parametrize('name', names())
def test_names_may_be_written_in_any_case(name):
    cls = method(name)
    option = list(options_of(cls))[-1]
    assert type(build_objective({'type': f'mmkd.{name.lower()}', 'WEIGHT': 3.0})) is cls
    with pytest.raises(TypeError, match=f"no option {option}z; .* Did you mean '{option}'"):
        build_objective({'type': name.upper(), f'{option}z': 1})
