"""Kinds of teacher are chosen by type, in any case, and complain in one voice."""

import pytest

from mmkd.building import build_teachers
from mmkd.teacher import Teacher
from mmkd.teachers import Momentum, build_teacher, frozen_networks, is_teacher, kind_of
from mmkd.testing import ToyNet


@pytest.mark.parametrize('name', ['mmkd.Momentum', 'Momentum', 'mmkd.momentum', Momentum])
def test_a_kind_by_its_name(name):
    assert kind_of(dict(type=name)) is Momentum


def test_without_a_type_it_is_the_frozen_network():
    assert type(build_teacher(dict(config=ToyNet(), checkpoint='random'))) is Teacher
    assert kind_of(dict(type='mmkd.Teacher')) is Teacher


def test_an_unknown_kind():
    with pytest.raises(
        ValueError, match="no kind of teacher. There are: .*Did you mean 'Momentum'"
    ):
        build_teacher(dict(type='mmkd.Momentun'))


def test_an_unknown_option():
    with pytest.raises(TypeError, match="Momentum has no option decoy.*Did you mean 'decay'"):
        build_teacher(dict(type='mmkd.Momentum', decoy=0.9))
    with pytest.raises(ValueError, match='Momentum: ramp must be True or False'):
        build_teacher(dict(type='mmkd.Momentum', ramp='False'))


def test_one_or_several():
    assert is_teacher(dict(type='mmkd.Momentum')) and is_teacher(dict(config='x.py'))
    assert not is_teacher(dict(a=dict(type='mmkd.Momentum')))
    built = build_teachers(dict(a=dict(type='mmkd.Momentum'), b=dict(type='mmkd.Momentum')))
    assert built['a'] is not built['b']


def test_frozen_networks_of_a_config():
    frozen = dict(config='x.py', checkpoint='y.pth')
    mean = dict(type='mmkd.Ensemble', members=dict(a=frozen, b=dict(type='mmkd.Momentum')))
    assert frozen_networks(frozen) == dict(teacher=frozen)
    assert frozen_networks(mean) == {'teacher.a': frozen}
    assert frozen_networks(dict(one=frozen, two=mean)) == {'one': frozen, 'two.a': frozen}
    assert frozen_networks(dict(type='mmkd.Momentum')) == frozen_networks(None) == {}
