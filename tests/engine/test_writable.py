"""What cannot be written is refused before the work begins."""

import pytest

from mmkd.engine.writable import check_file, make_folder


def test_a_folder_is_made(tmp_path):
    make_folder(tmp_path / 'a' / 'b')
    assert not list((tmp_path / 'a' / 'b').iterdir())
    make_folder(tmp_path / 'a' / 'b')


def test_a_file_is_not_made_yet(tmp_path):
    path = tmp_path / 'new' / 'table.md'
    check_file(path, '--out')
    assert path.parent.is_dir() and not path.exists()
    path.write_text('kept')
    check_file(path, '--out')
    assert path.read_text() == 'kept'


def test_a_file_stands_where_a_folder_is_needed(tmp_path):
    file = tmp_path / 'file'
    file.touch()
    for path in (file, file / 'inside'):
        with pytest.raises(
            OSError, match='^--work-dir: nothing can be written into .* is no folder'
        ):
            make_folder(path)


def test_a_folder_that_nothing_goes_into():
    with pytest.raises(
        OSError, match=r'^--work-dir: nothing can be written into /proc/x/y \(No such'
    ):
        make_folder('/proc/x/y')


def test_a_folder_stands_where_a_file_is_needed(tmp_path):
    with pytest.raises(OSError, match=r'^--out: .* cannot be written \(Is a directory\)'):
        check_file(tmp_path, '--out')
