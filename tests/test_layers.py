"""Imports go down only, in the order in which docs/design.md draws the house."""

import ast
import re
from pathlib import Path

import mmkd

ROOT = Path(mmkd.__file__).parent
DRAWN = (ROOT.parent / 'docs' / 'design.md').read_text().partition('```text\nmmkd/\n')[2]
#: modules and packages, highest first
HOUSE = re.findall(r'^    (\w+)(?:/|\.py)', DRAWN.partition('```')[0], re.MULTILINE)


def imported(path):
    """(module, line) of everything that a file imports of mmkd, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f'{path}:{node.lineno} imports relatively'
            names = [f'{node.module}.{alias.name}' for alias in node.names]
        else:
            names = [
                alias.name for alias in getattr(node, 'names', ()) if isinstance(node, ast.Import)
            ]
        yield from ((name, node.lineno) for name in names if name.split('.')[0] == 'mmkd')


def test_the_house_is_the_one_that_is_drawn():
    found = {path.stem for path in ROOT.iterdir() if path.suffix == '.py' or path.is_dir()}
    assert len(HOUSE) == len({*HOUSE})
    assert {*HOUSE} == {name for name in found if not name.startswith(('_', '.'))}


def test_imports_go_down_only():
    upward = []
    for path in ROOT.rglob('*.py'):
        own, *_ = path.relative_to(ROOT).with_suffix('').parts
        for name, line in imported(path) if not own.startswith('__') else ():
            other = (name.split('.') + [''])[1]
            if other != own and other not in HOUSE[HOUSE.index(own) + 1 :]:
                upward.append(f'{path.relative_to(ROOT)}:{line} imports {name}')
    assert not upward, '\n'.join(upward)


def test_methods_do_not_import_each_other():
    shared = [
        f'{path.relative_to(ROOT)}:{line} imports {name}; move it to mmkd/functional'
        for path in (ROOT / 'methods').glob('[!_]*.py')
        for name, line in imported(path)
        if name.startswith('mmkd.methods')
    ]
    assert not shared, '\n'.join(shared)


def test_imported_modules_exist():
    """Also of imports inside functions, which nothing else looks at before they run."""
    folders = ROOT, *(ROOT.parent / name for name in ('tests', 'tools'))
    missing = []
    for path in (path for folder in folders for path in folder.rglob('*.py')):
        for name, line in imported(path):
            module = ROOT.parent.joinpath(*name.split('.')[:-1])
            if not (module.is_dir() or module.with_suffix('.py').is_file()):
                missing.append(f'{path.relative_to(ROOT.parent)}:{line} imports {name}')
    assert not missing, '\n'.join(missing)
