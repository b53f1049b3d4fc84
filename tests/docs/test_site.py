"""The site of `make docs`, as far as it can be checked without mkdocs: navigation, links, lists."""

import re
import sys

import pytest
import yaml
from messages import ROOT

sys.path.insert(0, str(ROOT / 'docs'))
import repository_files  # noqa: E402

DOCS = ROOT / 'docs'
PAGES = sorted(DOCS.rglob('*.md'))


def entries(navigation):
    """Every page of a navigation, in its order."""
    for entry in navigation:
        for target in entry.values() if isinstance(entry, dict) else [entry]:
            yield from entries(target) if isinstance(target, list) else [target]


def test_every_page_is_in_the_navigation_once():
    site = yaml.safe_load((ROOT / 'mkdocs.yml').read_text())
    listed = sorted(entries(site['nav']))
    assert listed == sorted(page.relative_to(DOCS).as_posix() for page in PAGES)


def test_files_outside_docs_that_pages_link_to_get_a_page():
    found = repository_files.linked(PAGES)
    assert ROOT / 'mmkd' / 'methods' / 'fgfi.py' in found  # from a method's page
    assert ROOT / 'CHANGELOG.md' in found  # through CONTRIBUTING.md
    assert not [path for path in found if DOCS in path.parents]


@pytest.mark.parametrize(
    'page, before, after',
    [
        ('docs/index.md', '[a](tools.md#plan)', '[a](tools.md#plan)'),
        ('docs/index.md', '[a](../CONTRIBUTING.md)', '[a](repository/CONTRIBUTING.md)'),
        ('docs/index.md', '[a](../configs/README.md)', '[a](repository/configs/index.md)'),
        (
            'docs/methods/fgfi.md',
            '![x](../images/demo.jpg) [f](../../mmkd/methods/fgfi.py)',
            '![x](../images/demo.jpg) [f](../repository/mmkd/methods/fgfi.py.md)',
        ),
        ('CONTRIBUTING.md', '[d](docs/design.md)', '[d](../design.md)'),
        ('configs/README.md', '[c](demo_fgfi.py)', '[c](demo_fgfi.py.md)'),
        ('docs/index.md', '[w](https://x.org/a) [h](#start)', '[w](https://x.org/a) [h](#start)'),
        ('docs/index.md', '[a](../nowhere.md)', '[a](../nowhere.md)'),
        ('docs/index.md', '```text\n[a](../LICENSE)\n```', '```text\n[a](../LICENSE)\n```'),
    ],
)
def test_links_are_rewritten_for_the_site(page, before, after):
    assert repository_files.rewritten(before, ROOT / page) == after


def test_source_is_shown_and_not_searched():
    text = repository_files.content(ROOT / 'mmkd' / 'version.py')
    assert text.startswith('---\nsearch:\n  exclude: true\n')
    assert '# mmkd/version.py\n\n```py\n' in text


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_lists_are_lists_for_mkdocs_too(page):
    """GitHub starts a list or a table right after a line of text; Python-Markdown does not."""
    text = re.sub(r'^```.*?^```$', '', page.read_text(), flags=re.MULTILINE | re.DOTALL)
    starts = re.findall(r'^(?![ \t#|>-]|\* |\d+\. )\S.*\n(?:[-*] |\d+\. |\|).*', text, re.MULTILINE)
    assert not starts
