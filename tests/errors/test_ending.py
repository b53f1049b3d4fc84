"""How a command ends."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from yapf.yapflib import yapf_api

import mmkd
from mmkd.config import load_config
from mmkd.errors import ending as errors
from mmkd.errors.ending import (
    Stopped,
    describe,
    keep_tracebacks_in,
    last_saved,
    plain_errors,
    way_on,
)


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(errors, '_folder', None)
    monkeypatch.setattr(errors.tempfile, 'gettempdir', lambda: str(tmp_path / 'temporary'))
    for name in ('MMKD_TRACEBACK', 'RANK', 'WORLD_SIZE', 'MMKD_COMMAND'):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / 'temporary').mkdir()


def said(function, *arguments):
    with pytest.raises(Exception) as info:
        function(*arguments)
    return describe(info.value)


def end(error, capsys):
    with pytest.raises(SystemExit) as info, plain_errors():
        raise error
    return info.value.code, capsys.readouterr().err


def test_messages_of_mmkd_stand_alone(capsys, monkeypatch):
    with pytest.raises(SystemExit) as info, plain_errors():
        mmkd.Schedule(-1)
    assert info.value.code == 1
    message = 'weight: value must be a finite number of at least 0, found -1.'
    assert capsys.readouterr().err.splitlines()[:2] == ['', f'error: {message}']
    assert not [*Path('temporary').iterdir()]
    monkeypatch.setenv('MMKD_TRACEBACK', '1')
    with pytest.raises(ValueError), plain_errors():
        mmkd.Schedule(-1)


def test_others_come_with_their_place_and_a_file(capsys):
    keep_tracebacks_in('work')
    code, text = end(KeyError('palette'), capsys)
    assert code == 1 and 'temporary/error_' in text, 'the work dir is not there yet'
    Path('work').mkdir()
    code, text = end(KeyError('palette'), capsys)
    path = text.partition('traceback in ')[2].rstrip(')\n')
    assert text.startswith("\nerror: KeyError: 'palette' at ") and len(text.splitlines()) == 2
    assert path.startswith('work/error_') and "KeyError: 'palette'" in Path(path).read_text()


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError('no')


@pytest.mark.parametrize(
    'error',
    [
        *(AssertionError(), AttributeError('x'), ImportError('x'), IndexError(), RecursionError()),
        *(MemoryError(), StopIteration(), UnicodeDecodeError('utf8', b'x', 0, 1, 'bad')),
        *(Unprintable(), KeyError()),
    ],
)
def test_any_exception_ends_in_a_line(error, capsys):
    code, text = end(error, capsys)
    assert code == 1 and type(error).__name__ in text and 'traceback in' in text


def test_where_no_file_can_be_written_the_line_is_printed_all_the_same(capsys, monkeypatch):
    keep_tracebacks_in('/proc')
    monkeypatch.setattr(errors.tempfile, 'gettempdir', lambda: '/proc')
    monkeypatch.chdir('/proc')
    assert 'MMKD_TRACEBACK=1 shows' in end(KeyError('palette'), capsys)[1]


def test_long_messages_are_cut():
    text = said(lambda: int('\n'.join('abcdefghijklmnopqrstuvwxyz')))
    assert text.startswith('ValueError: invalid literal')
    lines = describe(ValueError('\n'.join('abcdefghijklmnopqrstuvwxyz'))).splitlines()
    assert len(lines) == 17 and lines[-1] == '  … and 11 more lines'


@pytest.mark.parametrize(
    'base',
    [
        "_base_ = ['./{}.py']\n",
        'from mmengine.config import read_base\nwith read_base():\n    from .{} import *\n',
    ],
)
def test_configs_in_a_circle(base):
    for name, other in ('ab', 'bc', 'cb'):
        Path(f'{name}.py').write_text(base.format(other))
    text = said(load_config, 'a.py').splitlines()[0]
    assert text == 'These configs inherit from each other in a circle: b.py -> c.py -> b.py.'


def test_of_many_processes_one_speaks(capsys, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '2')
    monkeypatch.setenv('RANK', '1')
    assert 'palette' in end(KeyError('palette'), capsys)[1]
    monkeypatch.setenv('RANK', '0')
    assert end(KeyError('palette'), capsys) == (1, '')
    names = [path.name for path in Path('temporary').glob('error_*')]
    assert len(names) == 2 and {name[-9:-4] for name in names} == {'rank0', 'rank1'}
    claim = next(Path('temporary').glob('mmkd_*'))
    os.utime(claim, (1, 1))  # of an earlier launch
    assert 'palette' in end(KeyError('palette'), capsys)[1]


def test_ctrl_c_and_sigterm_end_in_a_line(capsys):
    assert end(KeyboardInterrupt(), capsys) == (130, '\nStopped.\n')
    with pytest.raises(SystemExit) as info, plain_errors():
        os.kill(os.getpid(), signal.SIGTERM)
    assert info.value.code == 143 and 'SIGTERM' in capsys.readouterr().err
    assert end(Stopped('Go on like this.'), capsys) == (130, '\nGo on like this.\n')


def test_ctrl_c_that_became_another_error(capsys, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(yapf_api, 'FormatCode', interrupted)
    with pytest.raises(SystemExit) as info, plain_errors():
        _ = Config(dict(a=1)).pretty_text  # mmengine: SyntaxError
    assert info.value.code == 130 and capsys.readouterr().err == '\nStopped.\n'


RESUMING = [
    ['train.py', 'c.py', '--resume'],
    ['train.py', '--resume=x', 'c.py'],
    ['train.py', '--resume', 'old run.pth', 'c.py'],
]


@pytest.mark.parametrize('argv', [['train.py', 'c.py'], *RESUMING])
def test_the_way_on(argv):
    again = way_on('.', argv)
    assert again.endswith(f'To start again: python {shlex.join(argv)}')  # from the same file
    Path('iter_5.pth').touch()
    Path('last_checkpoint').write_text('iter_5.pth\n')
    found = way_on('.', argv)
    assert found == 'Stopped. To go on from iter_5.pth: python train.py c.py --resume'


@pytest.mark.parametrize('argv', [['train.py', 'c.py'], *RESUMING])
def test_the_way_on_when_the_checkpoint_is_of_the_run_before(argv):
    Path('iter_5.pth').touch()
    Path('last_checkpoint').write_text('iter_5.pth\n')
    found = way_on('.', argv, last_saved('.'))
    if argv == RESUMING[0]:
        assert found == 'Stopped. To go on from iter_5.pth: python train.py c.py --resume'
    else:
        assert found.endswith(f'To start again: python {shlex.join(argv)}')


@pytest.mark.parametrize(
    ('program', 'typed'),
    [('/venv/bin/mmkd', 'mmkd'), (f'{Path(mmkd.__file__).parent}/__main__.py', 'python -m mmkd')],
)
def test_the_way_on_of_the_command(program, typed):
    found = way_on('.', [program, 'train', 'c.py'])
    assert found.endswith(f'To start again: {typed} train c.py')
    Path('iter_5.pth').touch()
    Path('last_checkpoint').write_text('iter_5.pth')
    found = way_on('.', [program, 'train', 'c.py'])
    assert found == f'Stopped. To go on from iter_5.pth: {typed} train c.py --resume'


def test_a_pipe_in_place_of_last_checkpoint_is_not_waited_for():
    os.mkfifo('last_checkpoint')
    assert last_saved('.') is None


def test_the_way_on_of_a_script_that_started_the_processes(monkeypatch):
    monkeypatch.setenv('MMKD_COMMAND', 'bash tools/dist_train.sh c.py 2 --resume --amp')
    assert way_on('.', ['train.py']).endswith('bash tools/dist_train.sh c.py 2 --resume --amp')
    Path('iter_5.pth').touch()
    Path('last_checkpoint').write_text('iter_5.pth')
    assert way_on('.', ['train.py']).endswith('bash tools/dist_train.sh c.py 2 --amp --resume')


@pytest.mark.parametrize(
    ('body', 'status', 'words'),
    [
        ("print('x' * 10**6, flush=True)", 141, ''),
        ("raise BrokenPipeError('a worker')", 1, 'error: '),
    ],
)
def test_a_reader_that_has_left_is_no_error(body, status, words):
    code = f'from mmkd.errors.ending import plain_errors\nwith plain_errors():\n    {body}\n'
    with subprocess.Popen(
        [sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        if status == 141:
            child.stdout.close()
        said = child.stderr.read()
        assert child.wait() == status
    assert words in said
    assert bool(said) == bool(words)
