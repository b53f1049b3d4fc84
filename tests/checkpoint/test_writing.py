"""Files that are complete whenever they exist."""

from pathlib import Path

import pytest

from mmkd.checkpoint import atomic_file


def test_atomic_file(path):
    path.write_text('old')
    with pytest.raises(RuntimeError), atomic_file(str(path)) as part:
        Path(part).write_text('ne')
        raise RuntimeError
    assert path.read_text() == 'old'
    with atomic_file(str(path)) as part:
        Path(part).write_text('new')
        assert path.read_text() == 'old'
    assert path.read_text() == 'new'
    assert list(path.parent.iterdir()) == [path]


def test_a_directory_of_that_name_is_renamed(path):
    path.mkdir()
    with atomic_file(str(path)) as part:
        open(part, 'w').close()
    assert path.is_file()
    assert len(list(path.parent.glob('x.pth.*.directory'))) == 1
