"""The one helper through which numeric options pass, and the one for choices."""

import numpy as np
import pytest

from mmkd import methods
from mmkd.options import (
    RENAMED,
    check_choice,
    check_factors,
    check_list,
    check_number,
    check_temperature,
    match_options,
    options_of,
)


@pytest.mark.parametrize(
    ('bounds', 'good', 'bad', 'words'),
    [
        (
            {},
            [-1, 0.5, np.float32(2), 10**300],
            [float('nan'), '1', None, True],
            'a finite number,',
        ),
        (dict(least=1), [1, 2.5], [0.9], 'of at least 1,'),
        (dict(least=0, most=1), [0, 1], [-0.1, 1.1], 'from 0 to 1,'),
        (dict(above=0), [1e-9], [0], 'above 0,'),
        (dict(above=0, most=1), [1], [0, 1.5], 'above 0 and at most 1,'),
        (dict(least=0, below=1), [0], [1], 'of at least 0 and below 1,'),
        (dict(whole=True), [-3, 2.0, np.int64(4)], [1.5, 2**63, 'x'], 'a whole number,'),
        (dict(whole=True, least=1, optional=True), [None, 1], [0], 'at least 1, or None,'),
    ],
)
def test_numbers(bounds, good, bad, words):
    for value in good:
        found = check_number('FGFI', 'psi', value, **bounds)
        assert found == value and (value is None or 'whole' not in bounds or type(found) is int)
    for value in bad:
        with pytest.raises(ValueError, match=f'^FGFI: psi must be .*{words} found {value!r}.$'):
            check_number('FGFI', 'psi', value, **bounds)


def test_without_an_owner_the_option_speaks_for_itself():
    with pytest.raises(ValueError, match='^weight must be a finite number of at least 0, found -1'):
        check_number('', 'weight', -1, 0)


def test_temperatures_become_floats():
    assert type(check_temperature('KD', 4)) is float
    assert check_temperature('KD', None, optional=True) is None


def test_choices_are_found_in_any_case_and_answered_with_the_nearest():
    assert check_choice('AT', 'variant', 'PAPER', (None, 'paper', 'code')) == 'paper'
    assert check_choice('AT', 'variant', None, (None, 'paper')) is None
    assert check_choice('AT', 'variant', 'A', ('a', 'A')) == 'A'
    with pytest.raises(ValueError, match="found 'papre'. Did you mean 'paper'?"):
        check_choice('AT', 'variant', 'papre', (None, 'paper', 'code'))
    for value in ('x', True, ['paper'], float('nan')):
        with pytest.raises(ValueError, match='variant must be one of'):
            check_choice('AT', 'variant', value, (None, 'paper', 0, 1))


def test_factors():
    both = dict.fromkeys(('local', 'global'), 1.0)
    assert check_factors('FGD', {'Local': 2}, both) == {'local': 2, 'global': 1.0}
    assert check_factors('FGD', None, both) == both
    with pytest.raises(ValueError, match=r'factors must be a mapping .*found \[1\]'):
        check_factors('FGD', [1], both)
    with pytest.raises(ValueError, match=r'FGD: the factors of all terms \(local, global\) are 0'):
        check_factors('FGD', {'local': 0, 'global': 0}, both)


@pytest.mark.parametrize(
    ('owner', 'old', 'new'),
    [(owner, *names) for owner, options in RENAMED.items() for names in options.items()],
)
def test_an_old_name_of_an_option_leads_to_the_new_one(owner, old, new):
    known = options_of(getattr(methods, owner))
    assert old not in known and new.partition('=')[0] in known
    with pytest.raises(TypeError) as refused:
        match_options(owner, {old: 1}, known)
    assert str(refused.value) == f'{owner} has no option {old}; it is now called {new}.'


@pytest.mark.parametrize('value', ['text', b'bytes', 3, None, dict(a=1)])
def test_lists(value):
    assert check_list('it', 'at', (1, 2)) == [1, 2]
    with pytest.raises(ValueError, match='it: at must be a list, found'):
        check_list('it', 'at', value)
