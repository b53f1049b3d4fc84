"""The package of methods finds its files by itself."""

import subprocess
import sys
from pathlib import Path

import pytest

from mmkd import methods
from mmkd.registry import MODELS


def test_every_file_registers_a_method_that_can_be_imported_by_name():
    files = {path.stem for path in Path(methods.__file__).parent.glob('[!_]*.py')}
    found = {name: getattr(methods, name) for name in methods.names()}
    assert {cls.__module__ for cls in found.values()} == {f'mmkd.methods.{stem}' for stem in files}
    assert all(MODELS.get(f'mmkd.{name}') is cls for name, cls in found.items())
    assert set(found) < set(dir(methods))


def test_names_are_in_alphabetical_order():
    names = methods.names()
    assert names == sorted(names, key=str.lower) and {'AB', 'FGFI', 'WSOD2'} <= set(names)


def test_no_other_name_is_there():
    with pytest.raises(AttributeError, match="'mmkd.methods' has no attribute 'Distiller'"):
        methods.Distiller  # noqa: B018


IMPORTED = """
import sys, mmkd.engine.launch
from mmkd.registry import MODELS
MODELS.get('mmkd.fgfi'), MODELS.get('mmkd.Nothing')
print([m for m in sys.modules if m.startswith(('mmkd.methods.', 'mmseg.models'))])
"""


def test_a_run_imports_the_methods_that_it_uses():
    """And a detector's run not mmseg: both cost seconds before the first step."""
    done = subprocess.run([sys.executable, '-c', IMPORTED], capture_output=True, text=True)
    assert done.stdout.strip().endswith("['mmkd.methods.fgfi']"), done.stdout + done.stderr


def test_without_sources_every_method_is_imported(monkeypatch):
    from importlib.machinery import SourceFileLoader

    names = methods._read_names()
    monkeypatch.setattr(SourceFileLoader, 'get_source', lambda *_: None)
    for name in names:
        getattr(methods, name)  # imported before, so nothing is left to be registered
    monkeypatch.setattr(MODELS, '_module_dict', {})
    monkeypatch.setattr(methods, 'import_module', lambda m: _register(names, m))
    assert methods._read_names() == names


def _register(names, module):
    MODELS.module_dict.update({name: 1 for name, of in names.items() if of == module})
