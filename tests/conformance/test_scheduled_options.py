"""Options that may change over the run: what every method that names some owes its user."""

import copy

import pytest
import torch
from cases import batch, build, method, networks, pairs, terms, total

from mmkd.building import build_objective
from mmkd.methods import names
from mmkd.options import options_of
from mmkd.schedule import Progress, Schedule

OPTIONS = [(name, option) for name in names() for option in method(name).scheduled]
FIRST = {name: next(family for other, family in pairs() if other == name) for name, _ in OPTIONS}
#: of options that are at most 1; the others take whole numbers
UNIT = {'bottom_up': 0.125}
#: what makes an option count
MORE = {('LogitStandardization', option): dict(loss='dkd') for option in ('alpha', 'beta')}
MORE['DenseKD', 'tau'] = dict(classes='kl')


@pytest.mark.parametrize(('name', 'option'), OPTIONS)
def test_it_is_a_number_that_follows_its_schedule(name, option):
    cls, unit = method(name), UNIT.get(option, 1)
    assert 'float' in str(options_of(cls)[option].annotation)
    entry = dict(value=3 * unit, start=0.5, decay='linear', end_value=unit)
    more = MORE.get((name, option), {})
    objective = build_objective({'type': f'mmkd.{name}', option: entry} | more)
    wanted = Schedule(3 * unit, start=0.5, decay='linear', end_value=unit)
    assert objective.schedules == {option: wanted}
    assert objective.set_numbers(Progress(3, 4)) == {option: 2 * unit}
    assert getattr(objective, option) == 2 * unit
    in_python = Schedule(5 * unit, decay='cosine', end_value=unit)
    assert cls(**{option: in_python}, **more).schedules == {option: in_python}
    assert not cls(**{option: 2.0 * unit}, **more).schedules


@pytest.mark.parametrize(('name', 'option'), OPTIONS)
def test_both_ends_pass_the_checks_of_the_option(name, option):
    bad = -1 if option not in ('alpha', 'beta', 'gamma') else float('nan')
    for entry in (dict(value=bad), dict(value=1, decay='linear', end_value=bad)):
        with pytest.raises(ValueError, match=f'{name}.*{option}'):
            method(name)(**{option: entry})


@pytest.mark.parametrize(('name', 'option'), OPTIONS)
def test_the_loss_is_that_of_the_present_value(name, option, running):
    family = FIRST[name]
    networks(family)  # built once, with random numbers that are not those of adapters
    data = batch(family)

    def loss(at, value):
        running(at, 4)
        torch.manual_seed(0)  # of adapters
        distiller = build(name, family, **{option: value}, **MORE.get((name, option), {}))
        result = terms(distiller, copy.deepcopy(data))
        return total(result), result

    unit = UNIT.get(option, 1.0)
    moving = dict(value=3 * unit, decay='linear', end_value=unit)
    now, logged = loss(2, moving)
    constant, silent = loss(2, 2 * unit)
    assert torch.equal(now, constant)
    assert not torch.equal(now, loss(0, moving)[0])
    assert logged[option] == 2 * unit and not logged[option].requires_grad
    assert set(logged) - set(silent) <= {option}
