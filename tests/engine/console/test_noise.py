"""What is left off the screen."""

import sysconfig
import warnings

import pytest
from mmengine.utils.dl_utils import collect_env

from mmkd.engine.console.noise import is_noise, without_noise, without_shell_errors


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


def test_a_missing_compiler_is_not_mentioned(monkeypatch, capfd):
    monkeypatch.setattr(sysconfig, 'get_config_var', lambda name: 'no-such-compiler')
    collect_env()
    assert 'no-such-compiler' in capfd.readouterr().err  # the shell's words
    with without_shell_errors():
        assert collect_env()['GCC'] == 'n/a'
    assert capfd.readouterr().err == ''
