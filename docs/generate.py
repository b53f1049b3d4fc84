"""Writes the tables and pages that repeat what the code says: python docs/generate.py [--check]

With ``--check`` nothing is written; the exit status is 1 if a file is out of date. With
``--study WORK_DIR TITLE`` the table of a study is kept in docs/studies/ and shown in
docs/results.md.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from helper_table import helper_table
from method_page import page
from recipe_page import recipe_page
from source import ROOT, read_first_lines, read_methods, read_recipes
from study_tables import keep, read_studies, study_tables
from tables import full_table, name_list, navigation, short_tables


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
        (docs / 'helpers.md', 'modules', helper_table(ROOT)),
        (docs / 'results.md', 'studies', study_tables(read_studies(docs / 'studies'))),
    ):
        text = files.get(path) or path.read_text()
        files[path] = between(text, marker, content)
    several = {kind: read_first_lines(kind, root) for kind in ('chains', 'studies')}
    files[root / 'configs' / 'README.md'] = recipe_page(recipes, several)
    for stem in sorted({m.page for m in methods}):
        files[docs / 'methods' / f'{stem}.md'] = page([m for m in methods if m.page == stem])
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
    parser.add_argument(
        '--study', nargs=2, metavar=('WORK_DIR', 'TITLE'), help='keep and show the table of a study'
    )
    args = parser.parse_args()
    if args.study:
        work_dir, title = args.study
        print(f'wrote {keep(Path(work_dir), title, ROOT / "docs" / "studies").relative_to(ROOT)}')
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
