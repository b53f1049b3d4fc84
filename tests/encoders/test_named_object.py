"""Objects by their place in a module or a file."""

import math

import pytest

from mmkd.encoders.named_object import named_object


def test_of_a_module_and_of_a_file(tmp_path):
    assert named_object('it', 'math:sin') is math.sin
    file = tmp_path / 'mine.py'
    file.write_text('value = object()\n')
    assert named_object('it', f'{file}:value') is named_object('it', f'{file}:value')


@pytest.mark.parametrize(
    ('name', 'error', 'words'),
    [
        ('math', TypeError, "it must be 'package.module:name' or 'path/file.py:name'"),
        ('math:a b', TypeError, 'it must be'),
        ('math:nothing', ValueError, "it: there is no 'math:nothing'"),
        ('no_such_module:x', ValueError, 'No module named'),
        ('no_such_file.py:x', ValueError, 'No such file'),
    ],
)
def test_bad_input(name, error, words):
    with pytest.raises(error, match=words):
        named_object('it', name)


def test_a_file_that_fails_is_tried_again(tmp_path):
    file = tmp_path / 'broken.py'
    file.write_text('1 / 0\n')
    with pytest.raises(ZeroDivisionError):
        named_object('it', f'{file}:x')
    file.write_text('x = 3\n')
    assert named_object('it', f'{file}:x') == 3
