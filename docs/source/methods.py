"""Reads every method from its file."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from .classes import (
    BASES,
    attributes,
    base_defaults,
    bases_of,
    constants,
    families,
    lineage_of,
)
from .options import explained_with_base, read_options
from .recipes import read_recipes
from .records import ROOT, Method, UndocumentedError
from .text import before_sections, markdown, one_line, paragraphs, section

# "Wang et al., CVPR 2019, eqs. 1-5" or "Hinton et al., 2015": authors, venue if any, year.
PAPER = re.compile(
    r"(?P<authors>[A-Z][\w'-]+(?: et al\.| and [A-Z][\w'-]+)?), "
    r'(?:(?P<venue>[A-Z][\w -]*?) )?(?P<year>(?:19|20)\d\d)\b'
)


def read_methods(root: Path = ROOT) -> list[Method]:
    """Every registered objective under ``mmkd/methods``, by name, regardless of case."""
    defaults = base_defaults()
    methods = []
    for path in sorted((root / 'mmkd' / 'methods').glob('*.py')):
        tree = ast.parse(path.read_text())
        classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        for node in classes.values():
            if any('register_module' in ast.unparse(d) for d in node.decorator_list):
                methods.append(_read_method(path, root, tree, node, classes, defaults))
    recipes = read_recipes(root)
    known = {method.name for method in methods}
    for recipe in recipes:
        unknown = sorted(set(recipe.objectives) - known)
        if unknown:
            raise UndocumentedError(
                f'configs/{recipe.file}: {", ".join(unknown)} is no objective in mmkd/methods.'
            )
    for method in methods:
        method.configs = [r.file for r in recipes if method.name in r.objectives]
    return sorted(methods, key=lambda m: m.name.lower())


def _read_method(
    path: Path, root: Path, tree: ast.Module, node: ast.ClassDef, classes: dict, defaults: dict
) -> Method:
    file = path.relative_to(root).as_posix()
    lineage = list(lineage_of(node, classes, file))
    base = next(b for name in reversed(lineage) for b in bases_of(classes[name]) if b in BASES)
    facts = dict(defaults[base])
    for name in reversed(lineage):
        facts.update(attributes(classes[name], constants()))
    doc = ast.get_docstring(node) or ''
    compares, summary, paper, notes = _prose(tree, doc, f'{file}, {node.name}')
    options, remark = read_options(doc, classes, lineage, facts, base)
    return Method(
        name=node.name,
        file=file,
        compares=compares,
        summary=summary,
        paper=paper,
        notes=notes,
        options=options,
        remark=remark,
        also=explained_with_base(classes, lineage, {option.name for option in options}),
        refuses=markdown(one_line(section(doc, 'Raises').partition(':')[2])),
        base=base,
        needs_teacher=facts['needs_teacher'],
        needs_ground_truth=facts['needs_ground_truth'],
        zero_at_equality=facts['zero_at_equality'],
        rank_invariant=facts['rank_invariant'],
        families=_families(facts['families'], file, node.name),
        teacher_families=facts['teacher_families'],
        named_taps=tuple(name for name in families() if name in facts['named_taps']),
        only=facts['only'],
        taps='chosen to suit the model' if facts['taps'] is None else _taps(facts['taps']),
    )


def _prose(tree: ast.Module, doc: str, owner: str) -> tuple[str, str, str, list[str]]:
    """What it compares, the paper's title, its authors with venue, and further paragraphs."""
    compares = (ast.get_docstring(tree) or '').split('\n\n')[0].partition(': ')[2]
    summary, *notes = paragraphs(before_sections(doc))
    paper = next((match for note in notes if (match := PAPER.search(note))), None)
    if not (summary and compares and paper):
        raise UndocumentedError(
            f'{owner}: the module must begin with "Name: what it compares.", the class docstring '
            'with the title of the paper, and its second paragraph with authors, venue and year, '
            'as in "Wang et al., CVPR 2019, eqs. 1-5."'
        )
    venue = ' '.join(filter(None, (paper['venue'], paper['year'])))
    return markdown(one_line(compares)), summary, f'{paper["authors"]}, {venue}', notes


def _families(names: tuple[str, ...], file: str, owner: str) -> tuple[str, ...]:
    unknown = [name for name in names if name not in families()]
    if unknown or not names:
        raise UndocumentedError(
            f'{file}, {owner}: families = {names!r}; name those it works for, among '
            f'{", ".join(families())}.'
        )
    return tuple(name for name in families() if name in names)


def _taps(value: object) -> str:
    entries = [value] if isinstance(value, str) else list(value)  # type: ignore[call-overload]
    return ', '.join(f'`{entry}`' for entry in entries)
