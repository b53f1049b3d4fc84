"""The scripts of the set-up decide rightly, with a python that only pretends to install."""

import importlib.util
import os
import subprocess
import sys
import sysconfig
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: It notes what pip is asked for. The file of that name says which operators mmcv has afterwards;
#: where there is none, pip fails.
PYTHON = """#!/bin/bash
cd "$(dirname "$0")"
case "$*" in
  *inspect_mmcv.py\\ --toolkit) cat toolkit ;;
  *inspect_mmcv.py*) cat has ;;
  *' install '*)
    all="$*"
    echo "${all#* install }" >> arguments
    case "$*" in
      *--only-binary*) asked=wheel ;;
      *--no-build-isolation*onedl-mmcv*) asked=compiled ;;
      *onedl-mmcv*) asked=isolated ;;
      *) exit 0 ;;
    esac
    [[ "$*" = *--no-cache-dir* ]] || [ ! -e "cached-$asked" ] || asked=cached-$asked
    echo $asked >> calls
    [ $asked != compiled ] || echo 'Building wheel for onedl-mmcv'
    cp $asked has || exit 1 ;;
  *torch.version.cuda*) cat torch ;;
  *torch.cuda.is_available*) cut -d' ' -f1,2 torch ;;
esac
"""


class Machine:
    """The fake python and what it finds: no mmcv, no wheel of it, a compiler, no GPU."""

    def __init__(self, folder: Path, **files: str | None) -> None:
        self.folder = folder
        said = dict(has='absent', isolated='none', compiled='compiled', toolkit='enough')
        said |= {'torch': '2.13.0+cpu False no', 'torch-wanted': 'torch==2.13.0', **files}
        for name, text in said.items():
            if text is not None:
                (folder / name).write_text(text + '\n')
        self.program('python', PYTHON)

    def program(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)
        (self.folder / name).chmod(0o755)

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess:
        command = [ROOT / 'requirements' / script, self.folder / 'python', *arguments]
        environment = os.environ | {'PATH': f'{self.folder}:{os.environ["PATH"]}'}
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    def install_mmcv(self, operators: str) -> str:
        """What the user reads."""
        done = self.run('install_mmcv.sh', str(self.folder), operators)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize(
    'operators, files, calls, has',
    [
        # No wheel is offered: nothing is compiled.
        ('auto', {}, ['wheel', 'isolated'], 'none'),
        # A wheel fits; was made for another torch; has no operators.
        ('auto', {'wheel': 'compiled'}, ['wheel'], 'compiled'),
        ('auto', {'wheel': 'broken'}, ['wheel', 'isolated'], 'none'),
        ('auto', {'wheel': 'none'}, ['wheel'], 'none'),
        # What is there already works, or was compiled for another torch.
        ('auto', {'has': 'compiled'}, [], 'compiled'),
        ('auto', {'has': 'none'}, ['wheel'], 'none'),
        ('auto', {'has': 'broken'}, ['wheel', 'isolated'], 'none'),
        # pip's cache holds what was compiled for this torch, or for another one.
        ('auto', {'cached-isolated': 'compiled'}, ['wheel', 'cached-isolated'], 'compiled'),
        ('auto', {'cached-isolated': 'broken'}, ['wheel', 'cached-isolated', 'isolated'], 'none'),
        # Operators are compiled unless there is a wheel that fits.
        ('compiled', {}, ['wheel', 'compiled'], 'compiled'),
        ('compiled', {'has': 'none'}, ['wheel', 'compiled'], 'compiled'),
        ('compiled', {'has': 'compiled'}, [], 'compiled'),
        ('compiled', {'wheel': 'compiled'}, ['wheel'], 'compiled'),
        ('compiled', {'wheel': 'none'}, ['wheel', 'compiled'], 'compiled'),
        # pip's cache holds the build without operators.
        (
            'compiled',
            {'cached-compiled': 'none'},
            ['wheel', 'cached-compiled', 'compiled'],
            'compiled',
        ),
    ],
)
def test_mmcv_is_compiled_only_on_request(tmp_path, operators, files, calls, has):
    machine = Machine(tmp_path, **files)
    said = machine.install_mmcv(operators)
    assert machine.lines('calls') == calls
    assert machine.lines('has') == [has]
    assert ('without compiled operators' in said) == (has == 'none')
    assert ('a wheel of mmcv does not fit' in said) == (files.get('wheel') == 'broken')
    assert not (tmp_path / 'cpu-only').exists()


@pytest.mark.parametrize('compiled', ['broken', None])
def test_a_failed_compilation_ends_the_set_up_and_names_the_way_without(tmp_path, compiled):
    machine = Machine(tmp_path, compiled=compiled)
    done = machine.run('install_mmcv.sh', str(tmp_path), 'compiled')
    assert done.returncode == 1
    assert machine.lines('calls') == ['wheel', 'compiled']  # and not a second time
    assert 'make setup OPERATORS=auto' in done.stderr
    assert f'the whole output is in {tmp_path}/mmcv.log' in done.stderr


def test_pip_that_fails_ends_the_set_up(tmp_path):
    done = Machine(tmp_path, isolated=None).run('install_mmcv.sh', str(tmp_path), 'auto')
    assert done.returncode == 1
    assert f'the whole output is in {tmp_path}/mmcv.log' in done.stderr


def test_other_words_for_the_operators_are_refused(tmp_path):
    done = Machine(tmp_path).run('install_mmcv.sh', str(tmp_path), 'Compiled')
    assert done.returncode == 1
    assert done.stderr == "OPERATORS is auto or compiled, not 'Compiled'\n"


def test_the_gpu_is_hidden_only_where_operators_are_compiled_without_a_toolkit(tmp_path):
    machine = Machine(tmp_path, toolkit='missing', torch='2.13.0 True 13.0')
    said = machine.install_mmcv('compiled')
    assert (tmp_path / 'cpu-only').exists()
    assert 'make setup OPERATORS=auto' in said
    (tmp_path / 'has').write_text('broken\n')  # now that the GPU is in sight
    machine.install_mmcv('auto')
    assert not (tmp_path / 'cpu-only').exists()
    assert machine.lines('calls') == ['wheel', 'compiled', 'wheel', 'isolated']


def test_a_gpu_gets_the_torchvision_of_its_torch_from_the_same_index(tmp_path):
    wanted = 'torch --index-url https://example.org/cu130'
    machine = Machine(tmp_path, torch='2.13.0+cu130 True 13.0', **{'torch-wanted': wanted})
    machine.install_mmcv('auto')
    assert machine.lines('arguments')[-1] == f'{wanted} torch==2.13.0 torchvision'
    compiled = Machine(tmp_path, torch='2.13.0+cu130 True 13.0', has='compiled')
    compiled.install_mmcv('auto')
    assert len(compiled.lines('arguments')) == len(machine.lines('calls')) + 1  # none is needed


def test_without_a_gpu_there_is_no_torchvision(tmp_path):
    machine = Machine(tmp_path)
    machine.install_mmcv('auto')
    assert not any('torchvision' in line for line in machine.lines('arguments'))


@pytest.mark.parametrize(
    'torch, gpu, advice',
    [
        ('2.13.0+cpu False no', True, 'torch 2.13.0+cpu is built without CUDA'),
        ('2.13.0 False 13.0', True, 'torch 2.13.0 needs a driver for CUDA 13.0'),
        ('2.13.0 True 13.0', True, ''),
        ('2.13.0+cpu False no', False, ''),
    ],
)
def test_a_torch_that_does_not_see_the_gpu_is_said(tmp_path, torch, gpu, advice):
    machine = Machine(tmp_path, torch=torch)
    machine.program('nvidia-smi', f'#!/bin/sh\n{"echo GPU 0: some" if gpu else "exit 9"}\n')
    done = machine.run('install_torch.sh', 'torch==2.13.0', '--pre')
    assert done.returncode == 0, done.stderr
    assert machine.lines('arguments') == ['torch==2.13.0 --pre']
    assert advice in done.stdout
    assert ("make setup TORCH='torch==2.13.0 --index-url" in done.stdout) == bool(advice)


@pytest.fixture
def inspect_mmcv():
    path = ROOT / 'requirements' / 'inspect_mmcv.py'
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_mmcv_has_is_seen(inspect_mmcv, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'path', [str(tmp_path)])
    assert inspect_mmcv.state('2.3.6') == 'absent'
    information = tmp_path / 'onedl_mmcv-2.3.6.dist-info'
    information.mkdir()
    (information / 'METADATA').write_text(
        'Metadata-Version: 2.1\nName: onedl-mmcv\nVersion: 2.3.6\n'
    )
    (information / 'RECORD').write_text('mmcv/__init__.py,,\nmmcv/ops/_ext.py,,\n')
    assert inspect_mmcv.state('2.3.5') == 'absent'
    assert inspect_mmcv.state('2.3.6') == 'none'
    extension = f'mmcv/_ext{sysconfig.get_config_var("EXT_SUFFIX")}'
    (information / 'RECORD').write_text(f'mmcv/__init__.py,,\n{extension},,\n')
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / extension).write_text('made for another torch')
    assert inspect_mmcv.state('2.3.6') == 'broken'
    assert 'ImportError' in capsys.readouterr().err


def test_compiled_operators_are_tried(inspect_mmcv):
    try:
        installed = distribution('onedl-mmcv')
    except Exception:
        assert inspect_mmcv.state('2.3.6') == 'absent'
        return
    compiled = list((Path(installed.locate_file('mmcv'))).glob('_ext.*'))
    assert inspect_mmcv.state(installed.version) == ('compiled' if compiled else 'none')


def test_the_choice_is_remembered_and_repeats_only_the_steps_concerned(tmp_path):
    steps = tmp_path / '.setup'
    (tmp_path / 'bin').mkdir()
    steps.mkdir()
    machine = Machine(tmp_path / 'bin')
    for name, text in (('torch-wanted', 'torch==2.13.0'), ('operators-wanted', 'auto')):
        (steps / name).write_text(text + '\n')
    for mark in ('venv', 'torch', 'build-tools', 'mmcv', 'stack', 'mmkd'):
        (steps / mark).touch()

    def setup(*arguments):
        command = ['make', '-C', ROOT, 'setup', f'VENV={tmp_path}', *arguments]
        # make hands its variables on to what it runs, these tests among others
        own = ('TORCH', 'VENV', 'OPERATORS', 'PYTHON', 'ARGS', 'WORKERS')
        names = [name for name in os.environ if 'MAKE' not in name and name not in own]
        clean = {name: os.environ[name] for name in names}
        done = subprocess.run(command, capture_output=True, text=True, env=clean)
        assert done.returncode == 0, done.stdout + done.stderr
        calls = machine.lines('calls')
        (tmp_path / 'bin' / 'calls').unlink(missing_ok=True)
        return calls, [line[3:6] for line in done.stdout.splitlines() if line.startswith('== ')]

    assert setup() == ([], [])
    assert setup('OPERATORS=compiled') == (['wheel', 'compiled'], ['4/6', '5/6', '6/6'])
    assert setup() == ([], [])
    assert (steps / 'operators-wanted').read_text() == 'compiled\n'
    assert setup('OPERATORS=auto') == ([], ['4/6', '5/6', '6/6'])  # those compiled fit
