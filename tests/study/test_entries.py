"""What a study may say, and what it may not."""

import pytest

from mmkd.study.entries import Method, Pair, Search, Study


def test_the_shortest_study():
    found = Study.read(dict(methods=['a.py']))
    assert (found.pairs, found.seeds, found.baseline) == ([Pair()], [0], True)
    assert found.methods == [Method(config='a.py')] and found.search is None


def test_everything():
    teacher = dict(config='t.py', checkpoint='t.pth')
    found = Study.read(
        dict(
            pairs=dict(small=dict(student='s.py', teacher=teacher), large=dict(teacher='u.py')),
            methods=dict(a='KD+AT', b=dict(config='x::b.py', options={'model.balance': 0.3})),
            seeds=[0, 2],
            grid={'model.balance': [None, 0.3], 'lr': 1},
            metric='mIoU',
            baseline=False,
            search=dict(epochs=2, keep=2),
            anything='a variable of the file',
        )
    )
    assert found.pairs == [Pair('small', 't.py', 't.pth', 's.py'), Pair('large', 'u.py')]
    assert found.methods[0] == Method('a', objectives='KD+AT')
    assert found.methods[1] == Method('b', 'x::b.py', options={'model.balance': 0.3})
    assert found.grid == {'model.balance': [None, 0.3], 'lr': [1]}
    assert found.search == Search(2, 2) and not found.baseline


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(methods=[]), 'names none'),
        (dict(methods=None), 'names none'),
        (
            dict(methods=[dict(config='a.py', objectives='KD')]),
            r'methods\[0\] = .*: write the path',
        ),
        (
            dict(methods=dict(a=dict(config='a.py', option={}))),
            "methods.a has no 'option'. Did you",
        ),
        (dict(seeds=[]), 'name at least one'),
        (dict(seeds=[1, 1]), 'none twice'),
        (dict(seeds=[-1]), 'seed'),
        (dict(seed=[1]), "'seed'. Did you mean 'seeds'"),
        (dict(teacher=3), 'teacher is the path of a config or dict'),
        (dict(teacher=dict(config='t.py', weights='t.pth')), "teacher has no 'weights'"),
        (dict(pairs={}), 'write pairs=dict'),
        (dict(pairs=dict(a=dict(student='s.py')), student='s.py'), 'no teacher and student beside'),
        (dict(grid=[1]), 'write grid='),
        (dict(grid={'lr': []}), 'lr = .* has no value'),
        (dict(grid={'lr': [float('nan')]}), 'has no value that can be trained with'),
        (dict(search=3), 'write search=dict'),
        (dict(search=dict(keep=0)), 'keep'),
        (dict(search=dict(hold_out=1)), 'hold_out'),
        (dict(baseline='no'), 'baseline must be True or False'),
    ],
)
def test_what_cannot_be_meant(changes, message):
    with pytest.raises(ValueError, match=message):
        Study.read(dict(methods=['a.py']) | changes)
