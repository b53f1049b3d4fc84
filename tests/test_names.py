"""Names in a config: any case, and an answer for what is not there."""

import inspect

import pytest

from mmkd.names import check_part_name, did_you_mean, find_name, no_file
from mmkd.options import match_options, options_of


def test_a_name_is_found_in_any_case_if_that_is_unambiguous():
    assert find_name('FGFI', ['FGFI', 'fgfi']) == 'FGFI'
    assert find_name('cwd', ['CWD', None, 3]) == 'CWD'
    assert find_name('Cwd', ['CWD', 'cwd']) is None
    assert find_name(3, ['3']) is None and find_name('x', []) is None


def test_the_nearest_name():
    assert did_you_mean('fgif', ['FGFI', 'CWD']) == " Did you mean 'FGFI'?"
    assert did_you_mean('zzz', ['FGFI']) == '' and did_you_mean(3, ['FGFI']) == ''


def test_options_get_the_names_that_their_owner_knows():
    assert match_options('teacher', {'DType': 'bf16'}, ['dtype']) == {'dtype': 'bf16'}
    with pytest.raises(TypeError, match='teacher has no option dtyp; it has dtype. Did you mean'):
        match_options('teacher', {'dtyp': 'bf16'}, ['dtype'])
    with pytest.raises(TypeError, match='dtype is given twice'):
        match_options('teacher', {'dtype': 1, 'Dtype': 2}, ['dtype'])
    with pytest.raises(TypeError, match='no option 3'):
        match_options('teacher', {3: 1}, ['dtype'])


class Base:
    def __init__(self, a=1, b=2):
        self.a, self.b = a, b


class Passing(Base):
    def __init__(self, c=3, **rest):
        super().__init__(**rest)
        self.c = c


class Closed(Passing):
    def __init__(self, d=4):
        super().__init__()
        self.d = d


def test_options_of_a_base_count_only_where_they_are_handed_on():
    assert list(options_of(Passing)) == ['a', 'b', 'c']
    assert list(options_of(Closed)) == ['d']
    assert all(isinstance(p, inspect.Parameter) for p in options_of(Base).values())


@pytest.mark.parametrize('name', [None, 1, '', 'a.b', 'my_loss'])
def test_names_that_log_keys_cannot_have(name):
    with pytest.raises(ValueError, match='peer name '):
        check_part_name('peer', name)
    check_part_name('peer', 'other')
    with pytest.raises(ValueError, match='torch keeps some names'):
        check_part_name('peer', 'other', taken=True)


def test_a_name_that_is_no_file(tmp_path):
    (tmp_path / 'other.txt').touch()
    (tmp_path / 'c.json').mkdir()
    assert no_file(tmp_path / 'x.json', '.json') == f'there is no file {tmp_path}/x.json.'
    words = f'{tmp_path} is a folder, and a file is needed. It has '
    assert no_file(tmp_path, '.npz', '.pt') == f'{words}none that ends in .npz or .pt.'
    for i in range(8):
        (tmp_path / f'{i}.json').touch()
    assert no_file(str(tmp_path), '.json') == words + (
        '0.json, 1.json, 2.json, 3.json, 4.json, 5.json, ….'
    )
