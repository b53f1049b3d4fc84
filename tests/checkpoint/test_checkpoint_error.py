"""What is wrong with a file, in one sentence."""

import pytest

from mmkd.checkpoint.checkpoint_error import damage, first_line


@pytest.mark.parametrize(
    ('error', 'line'),
    [
        (ValueError('first.\nsecond'), 'first'),
        (EOFError(), 'EOFError'),
        (KeyError('  '), "'  '"),
    ],
)
def test_first_line(error, line):
    assert first_line(error) == line


def test_damage_names_the_file_the_reason_and_what_to_do():
    assert damage('a.pth', EOFError('ran out of input\nat 3')) == (
        'a.pth is truncated or damaged (ran out of input). Copy or download it again.'
    )
