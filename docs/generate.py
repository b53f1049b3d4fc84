"""Writes the tables and pages that repeat what the code says: python docs/generate.py [--check]

With ``--check`` nothing is written; the exit status is 1 if a file is out of date.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from source import ROOT, Method, Recipe, detectors, families, read_methods, read_recipes

NOTE = '<!-- written by docs/generate.py from the source: edit there -->'


def _cell(text: str) -> str:
    return text.replace('|', '\\|')


def _row(*cells: str) -> str:
    return '| ' + ' | '.join(cells) + ' |'


def _kinds(m: Method) -> str:
    return _words(m, m.families)


def _words(m: Method, named: tuple[str, ...]) -> str:
    """Families in words, those of detectors as one where all or all but one are there."""
    missing = sorted(set(detectors()) - (set(named) - set(m.only)))
    most = not missing or (len(missing) == 1 and missing[0] not in m.only)
    words = ['any detector' + ''.join(f' but {families()[name]}' for name in missing)] * most
    for name in named:
        if most and name in detectors():
            continue
        limit = f' ({", ".join(m.only[name])})' if name in m.only else ''
        words.append(families()[name] + limit)
    return ', '.join(words)


def _works(m: Method, family: str) -> str:
    """Cell of the table: yes, the detectors for which alone it works, or what it takes."""
    if family in m.named_taps:
        return 'named tap'
    return ', '.join(m.only.get(family, ['yes'] * (family in m.families)))


def by_task(methods: list[Method]) -> dict[str, list[Method]]:
    """Those for detectors, of the rest those for segmentors, and of the rest."""
    left, groups = list(methods), {}
    for title, kinds in (
        ('Detectors', set(detectors())),
        ('Segmentors', {'segmentor'}),
        ('Classifiers', {'classifier'}),
    ):
        groups[title] = [m for m in left if kinds & set(m.families)]
        left = [m for m in left if m not in groups[title]]
    return {title: own for title, own in groups.items() if own}


def name_list(methods: list[Method]) -> str:
    """The names in the README, folded."""
    lines = [f'<details>\n<summary>All {len(methods)} methods by name</summary>']
    for title, own in by_task(methods).items():
        names = ', '.join(f'[{m.name}](docs/methods/{m.page}.md)' for m in own)
        lines.append(f'- **{title}**: {names}')
    return '\n\n'.join([lines[0], '\n'.join(lines[1:]), '</details>'])


def navigation(methods: list[Method]) -> str:
    """The methods' entries in the navigation of the site."""
    lines = []
    for title, own in by_task(methods).items():
        pages = dict.fromkeys(m.page for m in own)
        entries = {page: ', '.join(m.name for m in own if m.page == page) for page in pages}
        lines += [f'      - {title}:']
        lines += [f'          - {name}: methods/{page}.md' for page, name in entries.items()]
    return '\n'.join(lines)


def short_tables(methods: list[Method]) -> str:
    """The methods in ``docs/methods.md``, one table a task: paper, mechanism, families."""
    parts = [f'### {title}\n\n{_rows(own)}' for title, own in by_task(methods).items()]
    return '\n\n'.join(parts)


def _rows(methods: list[Method]) -> str:
    lines = [_row('method', 'paper', 'idea', 'for'), '|---|---|---|---|']
    for m in methods:
        link = f'[{m.name}](methods/{m.page}.md)'
        lines.append(_row(link, m.paper, _cell(m.compares.rstrip('.')), _kinds(m)))
    return '\n'.join(lines)


def full_table(methods: list[Method]) -> str:
    """The table of ``docs/methods.md``: one column for each family and ability."""
    head = ['method', 'paper', *families().values(), 'teacher', 'ground truth', 'configs']
    lines = [_row(*head), '|---' * len(head) + '|']
    for m in methods:
        lines.append(
            _row(
                f'[{m.name}](methods/{m.page}.md)',
                m.paper,
                *(_works(m, name) for name in families()),
                'needed' if m.needs_teacher else 'no',
                'needed' if m.needs_ground_truth else 'no',
                str(len(m.configs) or ''),
            )
        )
    return '\n'.join(lines)


TASKS = {
    'Detectors (COCO, VOC)': lambda r: 'mmdet::' in r.student,
    'Segmentors (Cityscapes, VOC, ADE20K)': lambda r: 'mmseg::' in r.student,
    'BCCD, a small detection set': lambda r: 'bccd' in r.file,
    'CamVid, a small segmentation set': lambda r: 'camvid' in r.file,
    'CIFAR-10': lambda r: 'cifar10' in r.file and 'cifar100' not in r.file,
    'Classifiers (ImageNet, CIFAR-100)': lambda r: 'cls_' in r.file,
    'Synthetic scenes, for the demo': lambda r: True,
}


def recipe_page(recipes: list[Recipe]) -> str:
    """``configs/README.md``: configs by task and method; plain recipes come first."""
    left, parts = list(recipes), [NOTE, '# Configs', _CONFIGS]
    for title, belongs in TASKS.items():
        own = [r for r in left if belongs(r)]
        left = [r for r in left if r not in own]
        groups: dict[str, list[Recipe]] = {}
        for r in own:
            groups.setdefault(' + '.join(r.objectives) or 'plain', []).append(r)
        names = sorted(groups, key=lambda name: (name != 'plain', name.lower()))
        lines = [f'- **{name}**: {", ".join(map(_recipe_link, groups[name]))}' for name in names]
        parts += [f'## {title}', '\n'.join(lines)] if own else []
    return '\n\n'.join(parts) + '\n'


_CONFIGS = (
    "By task and method. A name says `<method>_<student's model>_<teacher>_<student>[_<data>].py`; "
    'what the fields mean is on the page [configs](../docs/configs.md), what a method does on its '
    '[own](../docs/methods.md).'
)


def _recipe_link(r: Recipe) -> str:
    return f'[{r.file.rpartition("/")[2].removesuffix(".py")}]({r.file})'


def page(methods: list[Method], root: Path = ROOT) -> str:
    """The page of one file in ``mmkd/methods``: one section for each objective in it."""
    first = methods[0]
    compares = first.compares[0].upper() + first.compares[1:]
    title = ', '.join(m.name for m in methods)
    parts = [NOTE, f'# {title}', compares]
    for m in methods:
        parts += [f'## {m.name}'] if len(methods) > 1 else []
        parts += [f'**{m.summary}**', *m.notes, _facts(m), _option_table(m)]
        parts += [f'Refused, with a message: {m.refuses}'] if m.refuses else []
    parts.append(_use(methods))
    configs = sorted({config for m in methods for config in m.configs})
    if configs:
        parts.append('Ready configs: ' + ', '.join(f'[{c}](../../configs/{c})' for c in configs))
    parts.append(
        f'Source: [{first.file}](../../{first.file}). Measured: [results](../results.md). '
        'All methods: [methods](../methods.md).'
    )
    return '\n\n'.join(part for part in parts if part) + '\n'


def _facts(m: Method) -> str:
    rows = [
        ('works for', _kinds(m)),
        ('works with named taps for', _words(m, m.named_taps)),
        ('taps unless named', m.taps),
        ('needs a teacher', 'yes' if m.needs_teacher else 'no'),
        ('needs ground truth', 'yes' if m.needs_ground_truth else 'no'),
        (
            'zero when student and teacher agree, adapters aside',
            'yes' if m.zero_at_equality else 'no',
        ),
        ('two ranks give the gradient of one', 'yes' if m.rank_invariant else 'no'),
    ]
    return '\n'.join(['| | |', '|---|---|', *(_row(*row) for row in rows if row[1])])


def _option_table(m: Method) -> str:
    lines = [_row('option', 'default', 'meaning'), '|---|---|---|']
    for o in m.options:
        kind = f'({o.kind}) ' if o.kind else ''
        lines.append(_row(f'`{o.name}`', f'`{o.default}`', _cell(kind + o.meaning)))
    table = '\n'.join(lines) if m.options else ''
    link = f'[{m.base}](../objectives.md#{m.base.lower()})'
    also = f'And the options of {link}.'
    if m.also is not None:
        names = ', '.join(f'`{name}`' for name in m.also)
        also = f'Also {names}: see {link}.' if m.also else ''
    return '\n\n'.join(filter(None, (table, f'{also} {m.remark}'.strip())))


def _use(methods: list[Method]) -> str:
    lines = [f"        {m.name.lower()}=dict(type='mmkd.{m.name}')," for m in methods]
    return '\n'.join(
        ['```python', 'model = dict(', '    objectives=dict(', *lines, '    ),', ')', '```']
    )


def between(text: str, marker: str, content: str) -> str:
    """``text`` with ``content`` between the two comments named ``marker``, of Markdown or YAML.

    Raises:
        ValueError: the file does not have both comments.
    """
    pattern = rf'(<!-- {marker}[^>]*-->\n).*?(<!-- /{marker} -->)'
    found, count = re.subn(pattern, lambda m: f'{m[1]}\n{content}\n\n{m[2]}', text, flags=re.DOTALL)
    if not count:
        pattern = rf'( *# {marker}:[^\n]*\n).*?( *# /{marker}\n)'
        found, count = re.subn(pattern, lambda m: f'{m[1]}{content}\n{m[2]}', text, flags=re.DOTALL)
    if not count:
        raise ValueError(f'no <!-- {marker} --> … <!-- /{marker} --> in the file.')
    return found


def outputs(root: Path = ROOT) -> dict[Path, str]:
    """Every generated file with the text that it should have."""
    methods, recipes = read_methods(root), read_recipes(root)
    docs = root / 'docs'
    files = {}
    for path, marker, content in (
        (root / 'README.md', 'methods', name_list(methods)),
        (root / 'mkdocs.yml', 'methods', navigation(methods)),
        (docs / 'methods.md', 'methods', short_tables(methods)),
        (docs / 'methods.md', 'families', full_table(methods)),
    ):
        text = files.get(path) or path.read_text()
        files[path] = between(text, marker, content)
    files[root / 'configs' / 'README.md'] = recipe_page(recipes)
    for stem in sorted({m.page for m in methods}):
        files[docs / 'methods' / f'{stem}.md'] = page([m for m in methods if m.page == stem], root)
    return files


def stale(root: Path = ROOT) -> list[Path]:
    """Generated files that differ from the source, or whose method is gone."""
    wanted = outputs(root)
    different = [p for p, text in wanted.items() if not p.exists() or p.read_text() != text]
    orphans = set((root / 'docs' / 'methods').glob('*.md')) - set(wanted)
    return different + sorted(orphans)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--check', action='store_true', help='write nothing, only compare')
    args = parser.parse_args()
    old = stale()
    for path in old:
        print(('out of date: ' if args.check else 'wrote ') + path.relative_to(ROOT).as_posix())
    if args.check:
        if old:
            print('run: python docs/generate.py')
        return int(bool(old))
    wanted = outputs()
    for path in old:
        if path not in wanted:
            path.unlink()
            continue
        path.parent.mkdir(exist_ok=True)
        path.write_text(wanted[path])
    return 0


if __name__ == '__main__':
    sys.exit(main())
