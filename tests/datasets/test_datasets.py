"""The package with one framework alone."""

import importlib.util
import re
import runpy
import sys
from pathlib import Path

import pytest

import mmkd.datasets


@pytest.mark.parametrize(('absent', 'module'), [('mmdet', 'bccd'), ('mmseg', 'camvid')])
def test_package_imports_with_either_framework_alone(absent, module, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr('importlib.util.find_spec', lambda name: name != absent and find(name))
    monkeypatch.setitem(sys.modules, f'mmkd.datasets.{module}', None)
    names = runpy.run_path(mmkd.datasets.__file__)['__all__']
    gone = {'bccd': {'BCCDDataset'}, 'camvid': {'CamVidDataset', 'LoadLabelMap'}}[module]
    assert set(mmkd.datasets.__all__) - set(names) == gone and 'generate_scene' in names


def test_only_three_files_import_a_framework():
    files = Path(mmkd.datasets.__file__).parent.glob('*.py')
    users = {
        path.stem
        for path in files
        if re.search('^(from|import) mm(det|seg)', path.read_text(), re.M)
    }
    assert users == {'bccd', 'camvid', 'label_maps'}
