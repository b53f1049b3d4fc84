"""The table of modules in ``docs/helpers.md``: first lines of docstrings, and public names."""

from __future__ import annotations

import ast
from pathlib import Path

from tables import cell, row

DEFINITIONS = (ast.FunctionDef, ast.ClassDef)
ROOMS = ('functional', 'families', 'rows', 'adapters')


def helper_table(root: Path) -> str:
    """A row for each module with helpers of methods."""
    lines = [row('module', 'contents', 'functions and classes'), '|---|---|---|']
    for room in ROOMS:
        for path in sorted((root / 'mmkd' / room).glob('*.py')):
            tree = ast.parse(path.read_text())
            names = [node.name for node in tree.body if isinstance(node, DEFINITIONS)]
            public = ', '.join(f'`{name}`' for name in names if not name.startswith('_'))
            module = room if path.stem == '__init__' else f'{room}.{path.stem}'
            if public:
                summary = (ast.get_docstring(tree) or '').split('\n')[0].rstrip('.')
                lines.append(row(f'`{module}`', cell(summary), public))
    return '\n'.join(lines)
