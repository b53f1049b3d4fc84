import subprocess
import sys

import pytest

from mmkd import environment
from mmkd.environment import EnvironmentProblem, check_environment, find_problems, fits

FORKS = {
    'torch': '2.13.0+cpu',
    'onedl-mmengine': '0.10.12',
    'onedl-mmcv': '2.3.6',
    'onedl-mmdetection': '3.5.1',
    'onedl-mmsegmentation': '1.4.2',
}
UPSTREAM = {
    'torch': '2.6.0',
    'mmengine': '0.10.7',
    'mmcv': '2.1.0',
    'mmdet': '3.3.0',
    'mmsegmentation': '1.2.2',
}


def problems(installed: dict, importable: tuple = ()) -> list[str]:
    return find_problems(installed.get, importable.__contains__)


def without(installed: dict, *names: str) -> dict:
    return {name: version for name, version in installed.items() if name not in names}


@pytest.mark.parametrize(
    'installed',
    [
        FORKS,
        UPSTREAM,
        without(FORKS, 'onedl-mmdetection'),
        without(UPSTREAM, 'mmsegmentation'),
        without(UPSTREAM, 'mmcv', 'mmdet') | {'mmcv-lite': '2.1.0'},
    ],
    ids=['forks', 'upstream', 'no mmdet', 'no mmseg', 'mmcv-lite for mmseg'],
)
def test_environments_that_work(installed):
    assert problems(installed) == []


@pytest.mark.parametrize(
    ('extra', 'fork', 'module'),
    [
        ('mmengine', 'onedl-mmengine', 'mmengine'),
        ('mmengine-lite', 'onedl-mmengine', 'mmengine'),
        ('mmcv', 'onedl-mmcv', 'mmcv'),
        ('mmcv-lite', 'onedl-mmcv', 'mmcv'),
        ('mmdet', 'onedl-mmdetection', 'mmdet'),
        ('mmsegmentation', 'onedl-mmsegmentation', 'mmseg'),
    ],
)
def test_both_families_of_one_package(extra, fork, module):
    (text,) = problems(FORKS | {extra: '2.1.0'})
    assert f'{extra} 2.1.0 and {fork} {FORKS[fork]} are both installed' in text
    assert f'import package {module}.' in text
    assert f'pip uninstall -y {extra} {fork} && pip install' in text
    assert text.endswith(f'{fork}=={FORKS[fork]}')


def test_the_family_in_the_majority_is_the_one_to_keep():
    (text,) = problems(UPSTREAM | {'onedl-mmengine': '0.10.12'})
    assert text.endswith('mmengine==0.10.7')


@pytest.mark.parametrize(
    ('name', 'version', 'wanted'),
    [
        ('torch', '2.5.1', '>=2.6'),
        ('onedl-mmengine', '0.9.1', '>=0.10'),
        ('onedl-mmcv', '1.7.2', '>=2.0,<3'),
        ('onedl-mmdetection', '2.28.0', '>=3.0,<4'),
        ('onedl-mmsegmentation', '0.30.0', '>=1.0,<2'),
    ],
)
def test_a_version_that_does_not_fit(name, version, wanted):
    (text,) = problems(FORKS | {name: version})
    assert f'{name} {version} is installed, mmkd needs {name}{wanted}' in text
    assert f'"{name}{wanted}"' in text.partition('Run: pip install ')[2]


@pytest.mark.parametrize('module', ['torch', 'mmengine', 'mmcv'])
def test_a_missing_package(module):
    (name,) = (name for name in FORKS if name.endswith(module))
    (text,) = problems(without(FORKS, name))
    assert text.startswith(f'{module} is not installed')
    assert problems(without(FORKS, name), importable=(module,)) == []


@pytest.mark.parametrize(('name', 'fork'), [('mmdet', 'detection'), ('mmsegmentation', 'segment')])
def test_upstream_releases_that_refuse_a_newer_mmcv(name, fork):
    others = without(UPSTREAM, 'mmcv', 'mmdet', 'mmsegmentation') | {name: UPSTREAM[name]}
    (text,) = problems(others | {'mmcv': '2.2.0'})
    assert f'{name} {UPSTREAM[name]} refuses mmcv 2.2.0' in text
    assert text.endswith('pip uninstall -y mmcv && pip install "mmcv-lite<2.2.0"')
    (text,) = problems(others | {'onedl-mmcv': '2.3.6'})
    assert f'pip install onedl-mm{fork}' in text


def test_mmcv_without_compiled_operators_is_enough():
    assert problems(without(UPSTREAM, 'mmcv') | {'mmcv-lite': '2.1.0'}) == []


@pytest.mark.parametrize(
    ('version', 'wanted', 'answer'),
    [
        ('2.13.0+cpu', '>=2.4', True),
        ('2.0.0rc4', '>=2.0,<3', True),
        ('2.0', '>=2.0.0', True),
        ('3.0.0', '>=2.0,<3', False),
        ('2.2.0', '<2.2.0', False),
        ('0.10.12', '>=0.10', True),
        ('0.9.9', '>=0.10', False),
        ('2.6.0a0+git1234567', '>=2.6', True),
        ('3.0.0.post1', '>=3.0,<4', True),
        ('3.3.1', '<=3.3.0', False),
        ('a checkout', '>=2.6', False),
    ],
)
def test_ranges(version, wanted, answer):
    assert fits(version, wanted) is answer


def test_one_error_lists_all_problems(monkeypatch):
    monkeypatch.delenv(environment.IGNORE, raising=False)
    monkeypatch.setattr(environment, 'find_problems', lambda: ['first thing', 'second thing'])
    with pytest.raises(EnvironmentProblem, match='(?s)1. first thing.*2. second thing'):
        check_environment()
    monkeypatch.setenv(environment.IGNORE, '1')
    check_environment()


def test_this_environment_fits():
    assert find_problems() == []


def test_the_table_is_printed():
    command = [sys.executable, '-W', 'error', '-m', 'mmkd.environment']
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith('These versions fit.\n')
    for name in ('python', 'torch', 'CUDA', 'mmengine', 'mmcv operators', 'numpy', 'opencv'):
        assert f'\n{name}' in '\n' + done.stdout


def test_the_check_imports_nothing_heavy():
    code = (
        'import importlib.util, sys\n'
        f'spec = importlib.util.spec_from_file_location("environment", {environment.__file__!r})\n'
        'module = importlib.util.module_from_spec(spec)\n'
        'sys.modules["environment"] = module\n'
        'spec.loader.exec_module(module)\n'
        'module.check_environment()\n'
        'assert not {"torch", "numpy", "mmengine", "mmcv"} & set(sys.modules)\n'
    )
    subprocess.run([sys.executable, '-c', code], check=True)
