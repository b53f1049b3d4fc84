"""What is left off the screen."""

import sysconfig
import warnings

import pytest
from mmengine.utils.dl_utils import collect_env
from pycocotools.coco import COCO

from mmkd.engine.console.noise import (
    is_noise,
    without_chatter,
    without_noise,
    without_shell_errors,
)


@pytest.mark.parametrize(
    'text',
    [
        'Could not import OneDL. Skipping OneDL datasets.',
        '"FileClient" will be deprecated in future. Please use io functions',
        '"HardDiskBackend" is the alias of "LocalBackend" and the former will be deprecated',
        'The prefix is not set in metric class IoUMetric.',
    ],
)
def test_noise(text):
    assert is_noise(text)


def test_a_warning_about_the_run_is_no_noise():
    assert not is_noise('CocoDataset: classes that never occur: disc')
    assert not is_noise('teacher is loaded, but no objective uses it', UserWarning)
    assert is_noise('use another function', FutureWarning)


def test_other_warnings_stay():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        with without_noise():
            warnings.warn('this function is deprecated', UserWarning, stacklevel=1)
            warnings.warn('soon', FutureWarning, stacklevel=1)
            warnings.warn('the disk is full', UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in seen] == ['the disk is full']


def test_pycocotools_reads_in_silence(tmp_path, capsys):
    file = tmp_path / 'a.json'
    file.write_text('{"images": [], "annotations": [], "categories": []}')
    with without_chatter():
        COCO(str(file))
        print('a/0.png', 'index created! 3 objects', sep='\n')
        print('no end', end='')
    assert capsys.readouterr().out == 'a/0.png\nindex created! 3 objects\nno end'
    COCO(str(file))
    said = capsys.readouterr().out.splitlines()
    assert said[0] == 'loading annotations into memory...' and len(said) == 4


def test_what_was_printed_before_an_error_is_shown(capsys):
    with pytest.raises(OSError), without_chatter():
        print('creating index...')
        print('half a line', end='')
        raise OSError
    assert capsys.readouterr().out == 'half a line'


def test_a_missing_compiler_is_not_mentioned(monkeypatch, capfd):
    monkeypatch.setattr(sysconfig, 'get_config_var', lambda name: 'no-such-compiler')
    collect_env()
    assert 'no-such-compiler' in capfd.readouterr().err  # the shell's words
    with without_shell_errors():
        assert collect_env()['GCC'] == 'n/a'
    assert capfd.readouterr().err == ''
