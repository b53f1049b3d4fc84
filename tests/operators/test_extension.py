"""Where mmcv gets its extension from: the compiled one, mmkd's, or one that does not load."""

import ast
import importlib
import os
import subprocess
import sys
from importlib.machinery import ExtensionFileLoader, ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

import mmcv
import pytest
import torch

import mmkd.operators
from mmkd.operators import OperatorMissing, describe
from mmkd.operators.extension import CHOICE, NAME, OPERATORS, OWN, Finder, adapt

OPS = Path(mmcv.__file__).parent / 'ops'


def load(spec):
    """Import what a finder found, without making it mmcv's."""
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def found(monkeypatch):
    """``found(spec)``: the extension where Python finds that one, or none."""

    def module(spec):
        monkeypatch.setattr(PathFinder, 'find_spec', lambda *args: spec)
        return load(Finder().find_spec(NAME, []))

    return module


def names_that_mmcv_asks_for():
    for path in OPS.glob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith('load_ext'):
                yield from ast.literal_eval(node.args[1])


def test_mmcv_finds_every_name_where_nothing_is_compiled(found):
    extension = found(None)
    assert extension.__spec__.origin == OWN
    names = set(names_that_mmcv_asks_for())
    assert len(names) > 100 and all(callable(getattr(extension, name)) for name in names)
    assert {name for files in OPERATORS.values() for name in files} < names
    assert not hasattr(extension, '__path__')
    assert 'mmkd' in extension.get_compiler_version()
    assert 'mmkd' in extension.get_compiling_cuda_version()


def test_other_operators_refuse_by_name(found):
    with pytest.raises(OperatorMissing, match='operator carafe_forward is not .* install .*mmcv'):
        found(None).carafe_forward(torch.ones(1))


@pytest.fixture
def broken(tmp_path):
    path = tmp_path / '_ext.so'
    path.write_bytes(b'compiled for another torch')
    loader = ExtensionFileLoader(NAME, str(path))
    return importlib.util.spec_from_file_location(NAME, path, loader=loader)


def test_a_compiled_extension_that_does_not_load_is_replaced(found, broken):
    extension = found(broken)
    assert callable(extension.nms) and not hasattr(extension, '__file__')
    assert 'do not load' in extension.__spec__.origin


class Compiled:
    """A loader whose extension has two operators; builtins, as compiled ones are."""

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        module.roi_pool_forward, module.nms, module.nms_match = len, max, min


@pytest.mark.parametrize(('choice', 'own'), [('auto', True), ('', True), ('compiled', False)])
def test_a_compiled_extension_is_kept(found, monkeypatch, choice, own):
    monkeypatch.setenv(CHOICE, choice)
    extension = found(ModuleSpec(NAME, Compiled()))
    assert extension.roi_pool_forward(torch.ones(3)) == 3
    assert extension.nms_match(torch.tensor(3), torch.tensor(4)) == 3  # not faster
    assert not hasattr(extension, 'carafe_forward')
    boxes, scores = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2]]), torch.tensor([0.1, 0.2])
    if own:  # mmkd's is faster on a CPU
        assert extension.nms(boxes, scores, iou_threshold=0.5, offset=0).tolist() == [1]
    else:
        assert extension.nms(torch.tensor(3), torch.tensor(4)) == 4


def test_own_operators_can_be_asked_for(found, monkeypatch):
    monkeypatch.setenv(CHOICE, 'own')
    assert found(ModuleSpec(NAME, Compiled())).__spec__.origin == OWN


def test_compiled_operators_that_were_asked_for_must_be_there(found, monkeypatch, broken):
    monkeypatch.setenv(CHOICE, 'compiled')
    with pytest.raises(ImportError, match='mmcv has no compiled operators.*pip install'):
        found(None)
    with pytest.raises(ImportError, match='_ext.so'):
        found(broken)


def test_a_choice_that_is_none_is_refused(found, monkeypatch):
    monkeypatch.setenv(CHOICE, 'fast')
    with pytest.raises(ValueError, match="one of auto, compiled, own, not 'fast'"):
        found(None)


def test_elsewhere_than_on_a_cpu_the_compiled_ones_work(monkeypatch):
    module = ModuleType(NAME)
    module.nms = module.roi_align_forward = max
    adapt(module)
    meta = torch.ones(2, 4, device='meta')
    with pytest.raises(TypeError, match='max'):
        module.nms(meta, meta[:, 0], iou_threshold=0.5, offset=0)
    with pytest.raises(TypeError, match='max'):  # the maximum of a bin is faster compiled
        module.roi_align_forward(torch.ones(1), pool_mode=0)


def test_other_modules_are_none_of_its_business():
    assert Finder().find_spec('mmcv.ops', []) is None


def test_it_is_installed_once():
    mmkd.operators.install()
    assert sum(isinstance(finder, Finder) for finder in sys.meta_path) == 1


def test_mmdet_must_not_have_gone_without(monkeypatch):
    for name in (NAME, 'mmdet.models'):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys, 'meta_path', [])
    mmkd.operators.install()
    assert [type(finder) for finder in sys.meta_path] == [Finder]
    sys.meta_path.clear()
    monkeypatch.delitem(sys.modules, NAME)
    with pytest.raises(ImportError, match='was imported before mmkd.*`import mmkd` first'):
        mmkd.operators.install()
    monkeypatch.setattr('multiprocessing.parent_process', lambda: 'a run')  # a DataLoader's worker
    mmkd.operators.install()


@pytest.mark.parametrize('gpu, more', [(False, ''), (True, '; on a GPU: ')])
def test_the_table_of_versions_says_which_are_in_use(monkeypatch, gpu, more):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    said = {}
    for name, spec in {
        'own': ModuleSpec(NAME, None, origin=OWN),
        'compiled': ModuleSpec(NAME, None, origin='_ext.so'),
    }.items():
        module = ModuleType(NAME)
        module.__spec__ = spec
        monkeypatch.setitem(sys.modules, NAME, module)
        said[name] = describe()
    assert said['own'].startswith(f"mmkd's, without a compiler{more}")
    assert ('on a GPU' in said['own']) == gpu
    assert said['compiled'].startswith('compiled')


def test_detectors_work_where_nothing_is_compiled():
    code = (
        'import mmkd, torch; from mmdet.models import RPNHead; from mmcv.ops import nms; '
        'print(nms(torch.tensor([[0., 0, 2, 2]]), torch.ones(1), 0.5)[1].tolist())'
    )
    done = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        env={**os.environ, CHOICE: 'own'},
    )
    assert done.stdout.strip() == '[0]', done.stderr
