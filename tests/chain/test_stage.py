"""What a stage may say, and what is refused; nothing is built."""

import pytest

from mmkd.chain.stage import Reference, Stage, is_chain, read_stages

T = dict(config='t.py')


@pytest.mark.parametrize(
    ('text', 'found'),
    [
        ('a', ('a', 'last', '')),
        ('a:last', ('a', 'last', '')),
        ('a-1_b:best', ('a-1_b', 'best', '')),
        ('a:epoch_8', ('a', 'epoch_8', '')),
        ('a:iter_800', ('a', 'iter_800', '')),
        ('a/peers.other', ('a', 'last', 'peers.other')),
        ('a:best/peers.other', ('a', 'best', 'peers.other')),
    ],
)
def test_references(text, found):
    one = Reference.read(text, 'last', 'here')
    assert (one.stage, one.take, one.part) == found
    assert Reference.read(str(one), 'best', 'here') == one, 'what it says is read as the same'


def test_take_is_the_default_of_references_and_they_win():
    stages = read_stages(
        dict(a=T, b=dict(T, take='best', teacher='a', student='a:last', objectives='a'))
    )
    found = {role: str(one) for role, one in stages['b'].references().items()}
    assert found == dict(teacher='a:best', student='a:last', objectives='a:best')


def test_roles_have_names():
    entry = dict(T, teacher={'x': 'a', 'ens.members.b': 'b'}, files={'model.teacher.weights': 'c'})
    found = Stage.read('s', entry).references()
    assert set(found) == {'teacher.x', 'teacher.ens.members.b', 'files.model.teacher.weights'}


@pytest.mark.parametrize('text', ['a:epoch', 'a:third', 'a b', '', 'a/heads.x', ':best', 3, 'a:'])
def test_what_is_no_reference(text):
    with pytest.raises(ValueError, match='is no reference. Write'):
        Reference.read(text, 'last', 'stages.s.teacher')


@pytest.mark.parametrize(
    ('name', 'entry', 'message'),
    [
        ('a b', T, 'stages.a b: the name of a stage is that of its folder'),
        ('../a', T, 'the name of a stage is that of its folder'),
        ('a', 't.py', r"stages.a = 't.py' is no stage. Write a=dict\(config=…\)"),
        ('a', {}, 'stages.a: give either config= or make=, found neither'),
        ('a', dict(T, make=dict(type='X')), 'give either config= or make=, found both'),
        ('a', dict(T, teachers='b'), "has no 'teachers'. Did you mean 'teacher'"),
        ('a', dict(T, take='first'), "stages.a.take = 'first': write 'last', 'best'"),
        ('a', dict(T, take='best'), "but the stage refers to no other. .*, write 'a:best'"),
        (
            'a',
            dict(T, options=['x=1']),
            r"stages.a.options = \['x=1'\] is no mapping. Write options",
        ),
        ('a', dict(T, files='b'), "stages.a.files = 'b' is no mapping. Write files={"),
        ('a', dict(make='X'), "stages.a.make = 'X' is no mapping. Write make=dict"),
        ('a', dict(T, student='b:nine'), "stages.a.student = 'b:nine' is no reference"),
    ],
)
def test_bad_entries(name, entry, message):
    with pytest.raises(ValueError, match=message):
        Stage.read(name, entry)


@pytest.mark.parametrize(
    ('stages', 'message'),
    [
        ({}, 'stages = {} has no stage'),
        (None, 'stages = None has no stage'),
        (dict(a=T, A=T), "Stages 'a' and 'A' would share one folder"),
        (
            dict(a=T, b=dict(T, teacher='teecher')),
            "Stage 'b': teacher = 'teecher:last', but there is no such stage. Stages before it: a.",
        ),
        (
            dict(first=T, b=dict(T, student='fist')),
            "Stage 'b': student = 'fist:last', but there is no such stage. Did you mean 'first'",
        ),
        (
            dict(a=dict(T, teacher='a')),
            "Stage 'a': teacher = 'a:last', but that is the stage itself. Stages before it: none.",
        ),
        (
            dict(a=dict(T, teacher='b'), b=T),
            "Stage 'a': teacher = 'b:last', but that stage comes later",
        ),
        (
            dict(a=dict(T, teacher='b'), b=dict(T, student='c'), c=dict(T, objectives='a')),
            "Stage 'a': teacher = 'b:last', but that stage needs 'a' in turn",
        ),
    ],
)
def test_bad_orders(stages, message):
    with pytest.raises(ValueError, match=message):
        read_stages(stages)


def test_what_is_a_chain():
    assert is_chain(dict(stages={})) and not is_chain(dict(model={}))


def test_files_are_options_of_a_maker():
    stage = Stage.read('b', dict(make=dict(type='mmkd.X', n=1), files=dict(asked='a')))
    assert stage.maker({}) == dict(type='mmkd.X', n=1, asked='a:last')
    assert stage.maker({'files.asked': 'a/file'})['asked'] == 'a/file'
