"""The wheel, built without network and looked into, and used from another folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from mmengine.config import Config
from recipes import python_path

import mmkd
from mmkd.config import own_config

ROOT = Path(__file__).resolve().parents[1]
CONFIG = 'fgfi_frcnn_r101_r50.py'


def shipped(folder: str) -> set[str]:
    """The files below a folder of the checkout, as paths inside the wheel."""
    return {
        f'mmkd/.mim/{path.relative_to(ROOT).as_posix()}'
        for path in (ROOT / folder).rglob('*')
        if path.is_file() and '__pycache__' not in path.parts
    }


@pytest.fixture(scope='module')
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """Built from a copy, so that the checkout stays as it is."""
    source = tmp_path_factory.mktemp('source')
    ignored = shutil.ignore_patterns('__pycache__', '.mim')
    for name in ('mmkd', 'configs', 'tools', 'requirements'):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ('setup.py', 'pyproject.toml', 'MANIFEST.in', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, '-m', 'pip', 'wheel', '--no-index', '--no-build-isolation']
    command += ['--no-deps', '--wheel-dir', str(source), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = source.glob('*.whl')
    assert built.name == f'mmkd-{mmkd.__version__}-py3-none-any.whl'
    return zipfile.ZipFile(built)


def test_the_wheel_carries_code_configs_and_tools(wheel):
    names = set(wheel.namelist())
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / 'mmkd').rglob('*.py')}
    assert modules <= names
    for folder in ('configs', 'tools'):
        assert shipped(folder)
        assert shipped(folder) <= names
    assert {name.split('/')[0] for name in names} == {'mmkd', f'mmkd-{mmkd.__version__}.dist-info'}


def test_the_wheel_leaves_torch_and_openmmlab_to_the_user(wheel):
    (metadata,) = (name for name in wheel.namelist() if name.endswith('/METADATA'))
    fields = Parser().parsestr(wheel.read(metadata).decode())
    needed = [line for line in fields.get_all('Requires-Dist') if 'extra ==' not in line]
    assert needed == ['numpy', 'packaging']
    assert fields['Requires-Python'] == '>=3.10'


def test_an_extra_brings_torch_and_openmmlab_as_they_are_tested(wheel):
    (metadata,) = (name for name in wheel.namelist() if name.endswith('/METADATA'))
    lines = Parser().parsestr(wheel.read(metadata).decode()).get_all('Requires-Dist')
    extras = {extra: set() for extra in ('openmmlab', 'gpu')}
    for line in lines:
        package, _, condition = line.partition('; extra == ')
        extras.get(condition.strip('"\''), set()).add(package.strip())
    pinned = (ROOT / 'requirements' / 'openmmlab.txt').read_text().splitlines()
    assert extras['openmmlab'] == {'torch>=2.6', *(line for line in pinned if line[0] != '#')}
    assert extras['gpu'] == {'torchvision'}  # it may not fit a torch for the CPU alone


def test_the_wheel_gives_the_command(wheel):
    (points,) = (name for name in wheel.namelist() if name.endswith('/entry_points.txt'))
    lines = wheel.read(points).decode().splitlines()
    assert lines == ['[console_scripts]', 'mmkd = mmkd.commands:main']


def test_configs_of_the_installed_package_serve_as_parents(wheel, tmp_path):
    wheel.extractall(tmp_path / 'site')
    mine = tmp_path / 'mine.py'
    mine.write_text(f"_base_ = ['mmkd::{CONFIG}']\nrandomness = dict(seed=7)\n")
    code = (
        'import mmkd\n'
        'from mmengine.config import Config\n'
        'from mmkd.config import own_config\n'
        'config = Config.fromfile("mine.py")\n'
        f'print(own_config("mmkd::{CONFIG}"), config.model.type, config.randomness)\n'
    )
    environment = os.environ | {'PYTHONPATH': python_path(tmp_path / 'site')}
    command = [sys.executable, '-c', code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    carried = tmp_path / 'site' / 'mmkd' / '.mim' / 'configs' / CONFIG
    assert done.stdout.splitlines()[-1] == f"{carried} mmkd.Distiller {{'seed': 7}}"


def test_configs_of_the_checkout_serve_as_parents(tmp_path):
    assert own_config(f'mmkd::{CONFIG}') == str(ROOT / 'configs' / CONFIG)
    mine = tmp_path / 'mine.py'
    mine.write_text(f"_base_ = ['mmkd::{CONFIG}']\n")
    config, local = Config.fromfile(mine), Config.fromfile(ROOT / 'configs' / CONFIG)
    assert config.to_dict() == local.to_dict()
