"""Code on the pages runs, in the order of the page."""

import importlib
import re
import sys

import pytest
from messages import ROOT
from mmengine.registry import DefaultScope

from mmkd import MODELS

PAGES = ['write-your-own-method.md', 'schedules.md']


@pytest.fixture
def as_found(tmp_path, monkeypatch):
    """An empty folder to run in; modules, registered methods and default scope go afterwards."""
    MODELS.import_from_location()  # what is registered now is what will be restored
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    known = [sys.modules, MODELS.module_dict, DefaultScope._instance_dict]
    before = [dict(mapping) for mapping in known]
    yield tmp_path
    for mapping, old in zip(known[1:], before[1:], strict=True):
        mapping.clear()
        mapping.update(old)
    for name in set(sys.modules) - set(before[0]):
        if name.startswith('my_'):
            del sys.modules[name]


@pytest.mark.parametrize('page', PAGES)
def test_code_runs(page, as_found):
    """Blocks that begin with ``# file: NAME`` are written and imported, the others executed."""
    text = (ROOT / 'docs' / page).read_text()
    names: dict = {}
    for number, block in enumerate(re.findall(r'^```python\n(.*?)^```$', text, re.M | re.S), 1):
        file = re.match(r'# file: (\w+)\.py\n', block)
        if not file:
            exec(compile(block, f'{page}, block {number}', 'exec'), names)
            continue
        (as_found / f'{file[1]}.py').write_text(block)
        if '_base_' not in block:
            importlib.import_module(file[1])
