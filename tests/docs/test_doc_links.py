"""Every relative link on a page leads somewhere, and every page is found from the index."""

import pkgutil
import re
from pathlib import Path

import pytest
from messages import ROOT

from mmkd import methods

PAGES = [*ROOT.glob('*.md'), *(ROOT / 'docs').rglob('*.md')]
HELPERS = (ROOT / 'docs' / 'helpers.md').read_text().partition('<!-- modules')[0]
LINK = re.compile(r'\]\(([^)\s]+)\)')


def links(page: Path) -> list[str]:
    """Targets on a page, outside code blocks."""
    text = re.sub(r'^```.*?^```', '', page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [link for link in LINK.findall(text) if not re.match(r'\w+:', link)]


def anchors(page: Path) -> set[str]:
    """Headings as GitHub turns them into anchors."""
    headings = re.findall(r'^#+ (.+)$', page.read_text(), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', h.lower()).replace(' ', '-') for h in headings}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    broken = []
    for link in links(page):
        path, _, anchor = link.partition('#')
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_every_page_is_found_from_the_index():
    index = ROOT / 'docs' / 'index.md'
    reached, waiting = {index}, [index]
    while waiting:
        page = waiting.pop()
        for link in links(page):
            target = (page.parent / link.partition('#')[0]).resolve()
            if target.suffix == '.md' and target.exists() and target not in reached:
                reached.add(target)
                waiting.append(target)
    lost = set((ROOT / 'docs').rglob('*.md')) - reached
    assert not lost


def test_commands_on_the_pages_exist():
    """``tools/NAME`` and ``configs/NAME`` anywhere on a page is a file here; MMDeploy's are not."""
    missing = set()
    for page in PAGES:
        text = re.sub(r'work_dirs/\S+', '', page.read_text())  # a study writes configs there
        for name in re.findall(
            r'(?<!mmdeploy/)\b((?:tools|configs)/(?:small/)?\w+\.(?:py|sh))\b', text
        ):
            if not (ROOT / name).exists():
                missing.add(f'{page.name}: {name}')
    assert not missing


def test_modules_on_the_pages_exist():
    """``mmkd/room/file.py``, ``mmkd.room.module`` and ``room/file.py`` are where a page says."""
    rooms = '|'.join(path.name for path in (ROOT / 'mmkd').iterdir() if path.is_dir())
    missing = set()
    for page in PAGES:
        text = page.read_text()
        files = re.findall(r'\b((?:mmkd|tests)/\w[\w/]*(?:\.py\b|/))', text)
        files += [f'mmkd/{name}' for name in re.findall(rf'`((?:{rooms})/\w+\.py)`', text)]
        missing |= {f'{page.name}: {name}' for name in files if not (ROOT / name).exists()}
        for name in re.findall(r'\b(mmkd(?:\.[a-z_]+)+)\b', text):
            if not is_importable(name):
                missing.add(f'{page.name}: {name}')
    assert not missing


def is_importable(name: str) -> bool:
    """A module, or an attribute of one."""
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


def test_helpers_on_their_page_exist():
    """``room.module.name`` in the tables for authors of methods."""
    named = re.findall(r'`((?:functional|families|rows|adapters)\.[\w.]+)`', HELPERS)
    assert len(named) > 40
    assert not [name for name in named if not is_importable(f'mmkd.{name}')]


def test_base_classes_on_the_page_of_helpers():
    """Each row of the table by kind of method: the methods to read derive from its base class."""
    rows = re.findall(r'^\|[^|]+\| `(\w+Objective|Objective)`.*\|([^|]+)\|$', HELPERS, re.MULTILINE)
    assert len(rows) > 10
    for base, read in rows:
        for name in re.findall(r'\[(\w+)\]', read):
            nearest = [cls.__name__ for cls in getattr(methods, name).__mro__]
            found = next(cls for cls in nearest if cls.endswith('Objective'))
            assert found == base, name
