"""Reads every shipped config from its syntax tree."""

from __future__ import annotations

import ast
from pathlib import Path

from .records import ROOT, Recipe, UndocumentedError


def read_recipes(root: Path = ROOT) -> list[Recipe]:
    """Every shipped config."""
    folder = root / 'configs'
    paths = [*folder.glob('*.py'), *folder.glob('small/*.py')]
    return [_read_recipe(path, folder) for path in sorted(paths, key=lambda path: path.name)]


def read_first_lines(folder: str, root: Path = ROOT) -> dict[str, str]:
    """Every shipped chain or study, and what the first line of its file says of it."""
    paths = sorted((root / 'configs' / folder).glob('*.py'))
    return {path.name: path.read_text().splitlines()[0].removeprefix('# ') for path in paths}


def _read_recipe(path: Path, folder: Path) -> Recipe:
    """One config, from its syntax tree.

    Raises:
        UndocumentedError: a Distiller whose objectives or teachers cannot be told from the file.
    """
    values = {
        ast.unparse(line.targets[0]): line.value
        for line in ast.parse(path.read_text()).body
        if isinstance(line, ast.Assign)
    }
    parents = ast.literal_eval(values['_base_']) if '_base_' in values else []
    model = _entries_of(values.get('model'))
    named = model.get('teacher')
    named = values.get(named.id, named) if isinstance(named, ast.Name) else named
    teacher = _entries_of(named)
    one = bool({'config', 'type', 'members'} & set(teacher))
    teachers = [teacher] if one else [_entries_of(t) for t in teacher.values()]
    if isinstance(several := model.get('teacher'), ast.DictComp):
        teachers = [_entries_of(several.value)]
    objectives = [_entries_of(entry) for entry in _entries_of(model.get('objectives')).values()]
    try:
        types = [_literal(entry['type'], values) for entry in objectives]
        configs = [name for entry in teachers for name in _configs_of(entry, values)]
    except (KeyError, ValueError):
        raise UndocumentedError(
            f'configs/{path.relative_to(folder)}: write the type of each objective and the config '
            'of each teacher as strings.'
        ) from None
    if not types and 'Distiller' in ast.unparse(model.get('type', ast.Constant(''))):
        raise UndocumentedError(
            f'configs/{path.relative_to(folder)}: a Distiller without objectives=dict(…).'
        )
    return Recipe(
        file=path.relative_to(folder).as_posix(),
        student=', '.join(parents),
        teacher=', '.join(configs),
        objectives=tuple(kind.removeprefix('mmkd.') for kind in types),
    )


def _configs_of(teacher: dict[str, ast.expr], values: dict[str, ast.expr]) -> list[str]:
    """Config of a teacher or of each member of it; of a kind without any its type."""
    if 'members' in teacher:
        members = [_entries_of(entry) for entry in _entries_of(teacher['members']).values()]
        return [name for entry in members for name in _configs_of(entry, values)]
    own = 'type' if 'type' in teacher and 'config' not in teacher else 'config'
    return [_literal(teacher[own], values)]


def _literal(node: ast.expr, values: dict[str, ast.expr]) -> str:
    """A string, written here or in a variable of the file."""
    if isinstance(node, ast.Name) and node.id in values:
        node = values[node.id]
    return ast.literal_eval(node)


def _entries_of(node: ast.expr | None) -> dict[str, ast.expr]:
    """Entries of ``dict(…)`` or ``{…}`` in a config; {} for anything else."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) == 'dict':
        return {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
    if isinstance(node, ast.Dict):
        return {ast.literal_eval(k): v for k, v in zip(node.keys, node.values, strict=True) if k}
    return {}
