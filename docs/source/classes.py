"""Classes as their syntax trees have them: attributes, parents, arguments."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from typing import Any

from .records import ROOT, UndocumentedError

#: base classes of methods, and the files that define them
BASES = {
    'Objective': 'objective.py',
    'PairObjective': 'objective.py',
    'InstanceObjective': 'rows/instance_objective.py',
    'GeneratorObjective': 'rows/generator_objective.py',
}


@cache
def families() -> dict[str, str]:
    """Every family and what it is called, as ``mmkd/families`` has it."""
    return constants()['FAMILIES']


@cache
def detectors() -> tuple[str, ...]:
    """The families of detectors."""
    return constants()['DETECTORS']


@cache
def constants() -> dict:
    """Constants of ``families`` and ``rows`` under the names that methods use: ``logits.KINDS``."""
    found: dict = {}
    rooms = (ROOT / 'mmkd' / 'families', ROOT / 'mmkd' / 'rows')
    for path in (path for room in rooms for path in sorted(room.glob('*.py'))):
        prefix = '' if path.stem == '__init__' else f'{path.stem}.'
        own = attributes(ast.parse(path.read_text()), found)
        found |= {prefix + name: value for name, value in own.items()}
    return found


def base_defaults() -> dict[str, dict]:
    """Class attributes of the base classes."""
    found: dict[str, dict] = {}
    for name, file in BASES.items():
        tree = ast.parse((ROOT / 'mmkd' / file).read_text())
        own = next(x for x in tree.body if isinstance(x, ast.ClassDef) and x.name == name)
        found[name] = {**found.get('Objective', {}), **attributes(own, constants())}
    return found


def attributes(node: ast.ClassDef | ast.Module, names: dict) -> dict:
    """What is assigned in a body, as values where they are literals or one of ``names``."""
    values = {}
    for line in node.body:
        target = line.target if isinstance(line, ast.AnnAssign) else None
        if isinstance(line, ast.Assign):
            target = line.targets[0]
        if isinstance(target, ast.Name) and line.value is not None:
            values[target.id] = _value(line.value, names)
    return values


def _value(node: ast.expr, names: dict) -> Any:
    if isinstance(node, (ast.Name, ast.Attribute)) and ast.unparse(node) in names:
        return names[ast.unparse(node)]
    if isinstance(node, ast.Tuple):
        parts = [
            _value(item.value, names) if isinstance(item, ast.Starred) else [_value(item, names)]
            for item in node.elts
        ]
        return tuple(value for part in parts for value in part)
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


def bases_of(node: ast.ClassDef) -> list[str]:
    return [ast.unparse(base) for base in node.bases]


def lineage_of(node: ast.ClassDef, classes: dict, file: str) -> Iterator[str]:
    """The class and its parents in the same file, up to one of the base classes."""
    yield node.name
    if any(base in BASES for base in bases_of(node)):
        return
    parent = next((base for base in bases_of(node) if base in classes), None)
    if parent is None:
        raise UndocumentedError(f'{file}, {node.name}: derive it from {" or ".join(BASES)}.')
    yield from lineage_of(classes[parent], classes, file)


def signature(classes: dict, lineage: list[str]) -> dict[str, str]:
    """Default of every argument of the nearest ``__init__``."""
    args = arguments(classes, lineage)
    if args is None:
        return {}
    names = args.args[len(args.args) - len(args.defaults) :]
    pairs = list(zip(names, args.defaults, strict=True))
    pairs += [
        (a, d) for a, d in zip(args.kwonlyargs, args.kw_defaults, strict=True) if d is not None
    ]
    return {a.arg: ast.unparse(d) for a, d in pairs}


def arguments(classes: dict, lineage: list[str]) -> ast.arguments | None:
    """Of the nearest ``__init__``, None if only the base has one."""
    for name in lineage:
        for item in classes[name].body:
            if isinstance(item, ast.FunctionDef) and item.name == '__init__':
                return item.args
    return None
