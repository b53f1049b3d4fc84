"""What the source says about methods and configs, parsed: nothing is imported.

A method is described in one place, its file: the module's first line says what it compares, the
class docstring names the paper and the options, class attributes say what it needs, the signature
holds the defaults. A config is described by its own syntax tree.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BASES = ('Objective', 'PairObjective')
# "Wang et al., CVPR 2019, eqs. 1-5" or "Hinton et al., 2015": authors, venue if any, year.
PAPER = re.compile(
    r"(?P<authors>[A-Z][\w'-]+(?: et al\.| and [A-Z][\w'-]+)?), "
    r'(?:(?P<venue>[A-Z][\w -]*?) )?(?P<year>(?:19|20)\d\d)\b'
)


class UndocumentedError(ValueError):
    """A method or config that does not say what the tables need; names file and remedy."""


@dataclass(frozen=True)
class Option:
    """One argument: its default as written, its type and meaning as in the docstring."""

    name: str
    default: str
    kind: str
    meaning: str


@dataclass
class Method:
    """One registered objective, as its file describes it."""

    name: str
    file: str
    compares: str
    summary: str
    paper: str
    notes: list[str]
    options: list[Option]
    remark: str
    also: tuple[str, ...] | None  # of the base's options; None for all
    refuses: str
    base: str
    needs_teacher: bool
    needs_ground_truth: bool
    zero_at_equality: bool
    rank_invariant: bool
    families: tuple[str, ...]
    named_taps: tuple[str, ...]
    only: dict[str, tuple[str, ...]]
    taps: str
    configs: list[str] = field(default_factory=list)

    @property
    def page(self) -> str:
        return Path(self.file).stem


@dataclass(frozen=True)
class Recipe:
    """One shipped config."""

    file: str
    student: str
    teacher: str
    objectives: tuple[str, ...]


def read_methods(root: Path = ROOT) -> list[Method]:
    """Every registered objective under ``mmkd/methods``, by name, regardless of case."""
    defaults = _base_defaults(root)
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


@cache
def families() -> dict[str, str]:
    """Every family and what it is called, as ``mmkd/families`` has it."""
    return _constants()['FAMILIES']


@cache
def detectors() -> tuple[str, ...]:
    """The families of detectors."""
    return _constants()['DETECTORS']


@cache
def _constants() -> dict:
    """Constants of ``families`` and ``rows`` under the names that methods use: ``logits.KINDS``."""
    found: dict = {}
    rooms = (ROOT / 'mmkd' / 'families', ROOT / 'mmkd' / 'rows')
    for path in (path for room in rooms for path in sorted(room.glob('*.py'))):
        prefix = '' if path.stem == '__init__' else f'{path.stem}.'
        own = _attributes(ast.parse(path.read_text()), found)
        found |= {prefix + name: value for name, value in own.items()}
    return found


def _base_defaults(root: Path) -> dict[str, dict]:
    """Class attributes of the base classes."""
    tree = ast.parse((root / 'mmkd' / 'objective.py').read_text())
    found = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    objective = _attributes(found['Objective'], {})
    return {name: {**objective, **_attributes(found[name], {})} for name in BASES}


def _attributes(node: ast.ClassDef | ast.Module, names: dict) -> dict:
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


def _read_method(
    path: Path, root: Path, tree: ast.Module, node: ast.ClassDef, classes: dict, defaults: dict
) -> Method:
    file = path.relative_to(root).as_posix()
    lineage = list(_lineage(node, classes, file))
    base = next(b for name in reversed(lineage) for b in _bases(classes[name]) if b in BASES)
    facts = dict(defaults[base])
    for name in reversed(lineage):
        facts.update(_attributes(classes[name], _constants()))
    doc = ast.get_docstring(node) or ''
    compares, summary, paper, notes = _prose(tree, doc, f'{file}, {node.name}')
    options, remark = _options(doc, classes, lineage, facts, base)
    return Method(
        name=node.name,
        file=file,
        compares=compares,
        summary=summary,
        paper=paper,
        notes=notes,
        options=options,
        remark=remark,
        also=_also(classes, lineage, {option.name for option in options}),
        refuses=markdown(one_line(_section(doc, 'Raises').partition(':')[2])),
        base=base,
        needs_teacher=facts['needs_teacher'],
        needs_ground_truth=facts['needs_ground_truth'],
        zero_at_equality=facts['zero_at_equality'],
        rank_invariant=facts['rank_invariant'],
        families=_families(facts['families'], file, node.name),
        named_taps=tuple(name for name in families() if name in facts['named_taps']),
        only=facts['only'],
        taps='chosen to suit the model' if facts['taps'] is None else _taps(facts['taps']),
    )


def _prose(tree: ast.Module, doc: str, owner: str) -> tuple[str, str, str, list[str]]:
    """What it compares, the paper's title, its authors with venue, and further paragraphs."""
    compares = (ast.get_docstring(tree) or '').split('\n\n')[0].partition(': ')[2]
    summary, *notes = _paragraphs(_before_sections(doc))
    paper = next((match for note in notes if (match := PAPER.search(note))), None)
    if not (summary and compares and paper):
        raise UndocumentedError(
            f'{owner}: the module must begin with "Name: what it compares.", the class docstring '
            'with the title of the paper, and its second paragraph with authors, venue and year, '
            'as in "Wang et al., CVPR 2019, eqs. 1-5."'
        )
    venue = ' '.join(filter(None, (paper['venue'], paper['year'])))
    return markdown(one_line(compares)), summary, f'{paper["authors"]}, {venue}', notes


def _paragraphs(text: str) -> list[str]:
    """Paragraphs as Markdown; what is indented after one that ends in ``::`` becomes a block."""
    found: list[str] = []
    for part in re.split(r'\n{2,}(?=\S)', text):
        prose, _, block = part.partition('::\n')
        found.append(markdown(one_line(prose)) + ':' * bool(block))
        if block:
            found.append('```\n' + textwrap.dedent(block).strip('\n') + '\n```')
    return found


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


def _bases(node: ast.ClassDef) -> list[str]:
    return [ast.unparse(base) for base in node.bases]


def _lineage(node: ast.ClassDef, classes: dict, file: str) -> Iterator[str]:
    """The class and its parents in the same file, up to one of the two base classes."""
    yield node.name
    if any(base in BASES for base in _bases(node)):
        return
    parent = next((base for base in _bases(node) if base in classes), None)
    if parent is None:
        raise UndocumentedError(f'{file}, {node.name}: derive it from {" or ".join(BASES)}.')
    yield from _lineage(classes[parent], classes, file)


def _options(
    doc: str, classes: dict, lineage: list[str], facts: dict, base: str
) -> tuple[list[Option], str]:
    """Options documented alone or together, and what is said about those explained elsewhere."""
    defaults = _signature(classes, lineage)
    options, remark, weight = [], '', ''
    for entry in _entries(_section(doc, 'Args')):
        head, _, meaning = entry.partition(': ')
        match = re.fullmatch(r'(\w+(?:, \w+)*) \((.*)\)', head)
        together = match[1].split(', ') if match else []
        if together and set(together) <= set(defaults):
            kind, meaning = match[2], markdown(meaning)
            options += [Option(name, defaults[name], kind, meaning) for name in together]
        elif head == 'weight':
            weight = markdown(meaning)
        else:  # "student, teacher, weight: see PairObjective. What is special about them."
            remark = markdown(meaning).partition('. ')[2]
    told = {option.name for option in options}
    if 'weight' not in told:
        options.append(_weight(defaults.get('weight', 'None'), weight, facts, base))
    if 'adapt' in defaults and 'adapt' not in told:
        options.append(Option('adapt', defaults['adapt'], '', _see(base)))
    return options, remark


def _weight(default: str, meaning: str, facts: dict, base: str) -> Option:
    """The row of the weight: ``None`` in a signature stands for the class's ``default_weight``."""
    published = facts['default_weight']
    if default == 'None' and (published != 1 or not meaning):
        default = repr(published)
    return Option('weight', default, '', f'{meaning} {_see(base)}'.strip())


def _see(base: str) -> str:
    return f'See [{base}](../objectives.md#{base.lower()}).'


def _signature(classes: dict, lineage: list[str]) -> dict[str, str]:
    """Default of every argument of the nearest ``__init__``."""
    args = _arguments(classes, lineage)
    if args is None:
        return {}
    names = args.args[len(args.args) - len(args.defaults) :]
    pairs = list(zip(names, args.defaults, strict=True))
    pairs += [
        (a, d) for a, d in zip(args.kwonlyargs, args.kw_defaults, strict=True) if d is not None
    ]
    return {a.arg: ast.unparse(d) for a, d in pairs}


def _also(classes: dict, lineage: list[str], told: set[str]) -> tuple[str, ...] | None:
    """Arguments that are explained with the base class; None where all of its are taken."""
    args = _arguments(classes, lineage)
    if args is None or args.kwarg:
        return None
    return tuple(a.arg for a in args.args[1:] + args.kwonlyargs if a.arg not in told)


def _arguments(classes: dict, lineage: list[str]) -> ast.arguments | None:
    """Of the nearest ``__init__``, None if only the base has one."""
    for name in lineage:
        for item in classes[name].body:
            if isinstance(item, ast.FunctionDef) and item.name == '__init__':
                return item.args
    return None


def _before_sections(doc: str) -> str:
    return re.split(r'\n(?:Args|Raises|Attributes|Returns):\n', doc)[0].strip()


def _section(doc: str, title: str) -> str:
    match = re.search(rf'^{title}:\n((?:(?:[ \t].*)?\n?)*)', doc, re.MULTILINE)
    return textwrap.dedent(match[1]).strip('\n') if match else ''


def _entries(section: str) -> list[str]:
    """Entries of an ``Args:`` section: a line at the margin starts one.

    A list of names may itself be broken over lines: an entry ends where a sentence may begin.
    """
    entries: list[str] = []
    for line in section.splitlines():
        unfinished = entries and ': ' not in entries[-1] and entries[-1].endswith(',')
        if line[:1].strip() and not unfinished:
            entries.append(line)
        elif entries:
            entries[-1] += ' ' + line.strip()
    return entries


def read_recipes(root: Path = ROOT) -> list[Recipe]:
    """Every shipped config."""
    folder = root / 'configs'
    paths = [*folder.glob('*.py'), *folder.glob('small/*.py')]
    return [_read_recipe(path, folder) for path in sorted(paths, key=lambda path: path.name)]


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
    teacher = _entries_of(model.get('teacher'))
    teachers = [teacher] if 'config' in teacher else [_entries_of(t) for t in teacher.values()]
    objectives = [_entries_of(entry) for entry in _entries_of(model.get('objectives')).values()]
    try:
        types = [_literal(entry['type'], values) for entry in objectives]
        configs = [_literal(entry['config'], values) for entry in teachers]
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


def one_line(text: str) -> str:
    return ' '.join(text.split())


def markdown(text: str) -> str:
    """Sphinx roles and double back-quotes as Markdown code."""
    text = re.sub(r':\w+:`~?(?:[\w.]+\.)?(\w+)`', r'`\1`', text)
    return re.sub(r'``(.+?)``', r'`\1`', text)
