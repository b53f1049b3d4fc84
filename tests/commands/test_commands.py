"""The command ``mmkd``: who is called, and what is answered before torch is imported."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mmkd
from mmkd import commands
from mmkd.analysis.routes import RANKS
from mmkd.commands import COMMANDS, answer, main
from mmkd.visualization.viewer import SPLITS

TOOLS = Path(mmkd.__file__).parents[1] / 'tools'


def module(name):
    return importlib.import_module(f'mmkd.commands.{name}')


@pytest.mark.parametrize('name', COMMANDS)
def test_a_command_is_a_file_with_a_parser(name, monkeypatch):
    parser = module(name).parser()
    assert f'mmkd {name}' in parser.description
    called = []
    monkeypatch.setattr(module(name), 'main', called.append)
    main([name, 'a', '--b'])
    assert called == [['a', '--b']]


def test_every_file_is_a_command():
    files = {path.stem for path in Path(commands.__file__).parent.glob('*.py')}
    assert files - {'__init__', 'arguments', 'chain', 'console'} == {*COMMANDS}


def test_tools_are_commands():
    for name in {*COMMANDS} - {'environment'}:
        assert f'from mmkd.commands.{name} import main\n' in (TOOLS / f'{name}.py').read_text()


def test_help_names_every_command_with_a_line(capsys):
    for words in (['--help'], ['-h'], []):
        with pytest.raises(SystemExit) as end:
            main(words)
        text = capsys.readouterr().out
        assert not end.value.code
        assert re.findall(r'^  (\w+)  +\S.{9,}$', text, re.MULTILINE) == [*COMMANDS]


def test_version_and_unknown_commands(capsys):
    with pytest.raises(SystemExit) as end:
        main(['--version'])
    assert not end.value.code and capsys.readouterr().out == f'mmkd {mmkd.__version__}\n'
    with pytest.raises(SystemExit) as end:
        main(['trian'])
    assert end.value.code == 2
    assert "no command 'trian'. Did you mean 'train'?" in capsys.readouterr().err


def test_a_command_of_two_words_in_either_spelling(capsys):
    with pytest.raises(SystemExit):
        main(['search-routes', '--help'])
    assert '--hold-out' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('argv', 'status', 'answered'),
    [
        (['mmkd', '--help'], 0, 'commands:'),
        (['mmkd', 'train', '--help'], 0, 'usage: mmkd train'),
        (['mmkd', 'train'], 2, 'required: config'),
        (['mmkd', 'tarin', 'x'], 2, "Did you mean 'train'?"),
        ([str(Path(mmkd.__file__).with_name('__main__.py'))], 0, 'commands:'),
        ([str(TOOLS / 'plan.py'), '--help'], 0, 'usage: plan.py'),
    ],
)
def test_answers_do_not_wait_for_torch(argv, status, answered):
    code = (
        f'import sys\nsys.argv = {argv!r}\n'
        'try:\n    import mmkd\nexcept SystemExit as end:\n'
        '    print("status", end.code or 0, {"torch", "mmengine", "numpy"} & {*sys.modules})\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == [f'status {status} set()'], done.stderr
    assert answered in done.stdout + done.stderr


@pytest.mark.parametrize(
    'argv',
    [
        ['mmkd', 'train', 'x.py', '--cfg-options', 'a=1'],
        [str(TOOLS / 'test.py'), 'x.py', 'y.pth'],
        [str(TOOLS / 'compatibility.py'), '--no-such-option'],
        ['other', '--help'],
    ],
)
def test_where_nothing_is_to_be_answered(argv, monkeypatch):
    monkeypatch.setattr(sys, 'argv', argv)
    answer()


def test_the_environment_is_told_where_mmkd_cannot_be_imported():
    code = (
        'import sys\n'
        'sys.argv = ["mmkd", "environment"]\n'
        'sys.modules["mmengine"] = None  # not installed\n'
        'import mmkd\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.startswith('python'), done.stderr


def test_choices_are_those_of_the_package():
    def choices(name, option):
        actions = module(name).parser()._actions
        return tuple(next(a.choices for a in actions if option in a.option_strings))

    assert choices('visualize', '--split') == SPLITS
    assert choices('search_routes', '--rank') == RANKS
