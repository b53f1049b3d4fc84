"""Which command a person typed."""

from pathlib import Path

import pytest

import mmkd
from mmkd.started import command_words, sibling, typed

PACKAGE = Path(mmkd.__file__).parent
MODULE = str(PACKAGE / '__main__.py')
TOOL = str(PACKAGE.parent / 'tools' / 'train.py')


@pytest.mark.parametrize(
    ('argv', 'original', 'words'),
    [
        (['/venv/bin/mmkd', 'train', 'x'], [], ['train', 'x']),
        (['C:/venv/mmkd.exe', 'train'], [], ['train']),
        (['-m', 'train', 'x'], ['python', '-m', 'mmkd', 'train', 'x'], ['train', 'x']),
        ([MODULE, 'train'], [], ['train']),
        ([TOOL, 'x', '--amp'], [], ['train', 'x', '--amp']),
        ([str(PACKAGE / '.mim' / 'tools' / 'test.py'), 'x'], [], ['test', 'x']),
        # other programs, which import mmkd
        (['-m', 'mmkd'], ['python', '-m', 'pytest', 'mmkd'], None),
        (['my_mmkd.py', 'train'], [], None),
        (['somewhere/tools/train.py', 'x'], [], None),
        (['-c'], ['python', '-c', 'import mmkd'], None),
        ([], [], None),
    ],
)
def test_the_words_of_a_command(argv, original, words):
    assert command_words(argv, original) == words


@pytest.mark.parametrize(
    ('program', 'again', 'other'),
    [
        ('/venv/bin/mmkd', ['mmkd'], ['mmkd', 'test']),
        (MODULE, ['python', '-m', 'mmkd'], ['python', '-m', 'mmkd', 'test']),
        (TOOL, ['python', TOOL], ['python', TOOL.replace('train', 'test')]),
        ('mine.py', ['python', 'mine.py'], ['mmkd', 'test']),
    ],
)
def test_what_is_typed_next(program, again, other):
    assert typed([program, 'x', '--y']) == [*again, 'x', '--y']
    assert sibling([program, 'x'], 'test') == other
