"""From a study to its rows; nothing is trained."""

from dataclasses import replace
from pathlib import Path

import pytest
from chain_toys import anyone, write

from mmkd.config import load_config
from mmkd.study.entries import Study
from mmkd.study.pairing import look_at, rows_of


def read(work_dir, look=look_at, **entries):
    (found,) = rows_of(Study.read(entries), str(work_dir), look)
    return found


@pytest.fixture(scope='module')
def by_name(pair, tmp_path_factory):
    folder = tmp_path_factory.mktemp('by_name')
    methods = ['KD', 'FGFI', 'KD+dkd']
    grid = {'model.objectives.kd.weight': [0.5, 1]}
    return folder, read(folder, lambda row: None, **pair, methods=methods, grid=grid)


def test_methods_by_name(by_name, pair):
    folder, found = by_name
    names = ['KD, weight=0.5', 'KD, weight=1', 'FGFI']
    names += ['KD + dkd, weight=0.5', 'KD + dkd, weight=1']
    assert [row.name for row in found.methods] == names
    assert [row.learns_from for row in found.methods] == 5 * ['teacher']
    config = load_config(found.methods[-1].config)
    assert list(config.model.objectives) == ['kd', 'dkd']
    assert config.model.teacher.config == pair['teacher']
    assert Path(found.methods[0].config).parent == folder / 'configs'


def test_what_does_not_fit_is_a_row_with_its_reason(by_name):
    _, found = by_name
    refused = [row.refused for row in found.methods]
    assert [bool(text) for text in refused] == [False, False, True, False, False]
    assert refused[2].startswith('refused: FGFI needs boxes and a dense detection head')


def test_a_look_at_a_row_builds_it(by_name):
    row = by_name[1].methods[0]
    look_at(row)
    bad = {'model.objectives.kd.classes': ['none']}
    with pytest.raises(TypeError, match="Stage 'look' .*: objective 'kd'"):
        look_at(replace(row, options=bad))


def test_plain_is_the_first_method_without_its_weight(by_name):
    _, found = by_name
    assert found.plain.config == found.methods[0].config
    assert found.plain.options == {
        'model.objectives.kd.weight': 0,
        'model.teacher.config': found.pair.teacher,
        'model.teacher.checkpoint': 'random',
    }, 'it waits for no teacher'
    assert not found.plain.learns_from
    assert found.teacher.config == found.pair.teacher and not found.pair.checkpoint
    assert [row.name for row in found][:2] == ['teacher', 'plain']


def test_all_are_those_that_fit(pair, tmp_path, monkeypatch):
    """And learn from the data: ZSKT fits, but generates images."""
    monkeypatch.setattr('mmkd.study.pairing.methods.names', lambda: ['KD', 'FGFI', 'DKD', 'ZSKT'])
    found = read(tmp_path, lambda row: None, **pair, methods='all', baseline=False)
    assert [row.name for row in found.methods] == ['KD', 'DKD'] and found.plain is None


def test_distilled_configs_and_their_own_teacher(paths, images, tmp_path):
    given = dict(config=paths['teacher'], checkpoint='t.pth')
    own = write(tmp_path, images, a=dict(teacher=given), b=dict(teacher=given))
    found = read(tmp_path, lambda row: None, methods=[own['a'], own['b']])
    assert [row.name for row in found.methods] == ['a', 'b'], 'both distil by KD alone'
    assert (found.pair.teacher, found.pair.checkpoint) == (paths['teacher'], 't.pth')
    assert found.methods[0].options['model.teacher.checkpoint'] == 't.pth'
    assert not found.methods[0].learns_from


def test_a_teacher_without_weights_is_trained(paths, images, tmp_path):
    own = write(tmp_path, images, a=dict(teacher=dict(config=paths['teacher'], checkpoint='last')))
    found = read(tmp_path, lambda row: None, methods=own['a'])
    assert found.methods[0].name == 'KD' and found.methods[0].learns_from == 'teacher'
    assert found.pair.checkpoint == ''


def test_other_schedules_are_noted(pair, paths, images, tmp_path):
    own = write(tmp_path, images, a=dict(teacher=anyone(8), **{'train_cfg.max_epochs': 3}))
    methods = dict(kd=paths['student'], a=own['a'])
    found = read(tmp_path, lambda row: None, **pair, methods=methods)
    assert [row.notes for row in found.methods] == [
        (),
        ('differs from plain in train_cfg.max_epochs',),
    ]


def test_a_method_that_needs_an_option_gets_it_and_says_so(pair, tmp_path, monkeypatch):
    from mmkd.analysis.fits import MethodFit, Pair

    fit = MethodFit('KD', options=dict(tau=2))
    monkeypatch.setattr(Pair, 'fit', lambda self, name: fit)
    found = read(tmp_path, lambda row: None, **pair, methods=['KD'])
    (row,) = found.methods
    assert row.options == {'model.objectives.kd.tau': 2}
    assert row.notes == ('KD with tau=2, without which it does not fit',)


def refuse(row):
    raise ValueError("Stage 'look' (a.py): objective 'kd': no. More of it.")


@pytest.mark.parametrize(
    ('entries', 'kind', 'message'),
    [
        (dict(methods=['KDD']), ValueError, "'KDD' is unknown.*Did you mean 'KD'"),
        (dict(methods=['none.py']), FileNotFoundError, 'none.py'),
        (dict(methods=dict(plain='KD')), ValueError, "two rows would be called 'plain'"),
        (dict(methods=['KD', 'KD']), ValueError, 'two rows would be called'),
        (
            dict(methods=['KD']),
            ValueError,
            'No method of the study can be trained. KD is refused: n',
        ),
    ],
)
def test_what_is_wrong_with_a_study(pair, tmp_path, entries, kind, message):
    with pytest.raises(kind, match=message):
        read(tmp_path, refuse, **pair, **entries)


def test_a_plain_config_is_no_method_and_a_name_needs_a_pair(pair, tmp_path):
    with pytest.raises(ValueError, match='does not distil. Name it as student='):
        read(tmp_path, methods=[pair['student']])
    with pytest.raises(ValueError, match='has to name both networks'):
        read(tmp_path, methods=['KD'])


def test_several_teachers_are_refused(pair, paths, images, tmp_path):
    teachers = dict(a=anyone(8), b=anyone(6))
    objectives = dict(kd=dict(type='mmkd.KD', teacher_name='a'))
    own = write(tmp_path, images, a=dict(teacher=teachers, objectives=objectives))
    methods = dict(kd=paths['student'], two=own['a'])
    found = read(tmp_path, lambda row: None, **pair, methods=methods)
    assert not found.methods[0].refused
    assert 'asks for a teacher without a name' in found.methods[1].refused


def test_the_command_of_a_run_sets_the_teacher_where_it_stands(pair, images, tmp_path):
    own = write(tmp_path, images, a=dict(teacher=dict(big=anyone(8))))
    found = read(tmp_path, lambda row: None, teacher=pair['teacher'], methods=own['a'])
    command = found.methods[0].command(0, 'out')
    assert ' model.teacher.big.checkpoint=out/teacher ' in command
    assert command.endswith(f' model.teacher.big.config={pair["teacher"]}')
    ready = replace(found, flags=('--amp',)).command(found.methods[0], 0, 'out')
    assert ready == command.replace(' --cfg-options', ' --amp --cfg-options')
