"""A hook of mkdocs: files outside docs/ that pages link to become pages of the site.

On GitHub a page links to ``../CONTRIBUTING.md`` or ``../../mmkd/methods/fgfi.py``, outside the
folder that mkdocs reads. In the site they have the address ``repository/<path>``: Markdown as a
page, source in a code block. Links are rewritten to match; a broken one is left to mkdocs, which
reports it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # installed for `make docs` alone
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / 'docs'
LINK = re.compile(r'(?<=\]\()(?!\w+:|#)([^)\s#]+)')
CODE_BLOCK = re.compile(r'^(```.*?^```)$', re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds every file outside docs/ that a page links to, directly or through such a file."""
    from mkdocs.structure.files import File

    for path in linked([DOCS / file.src_uri for file in files.documentation_pages()]):
        files.append(File.generated(config, address(path), content=content(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with links into the site; pages added by :func:`on_files` have them already."""
    path = DOCS / page.file.src_uri
    return rewritten(markdown, path) if path.exists() else markdown


def linked(pages: list[Path]) -> list[Path]:
    """Files outside docs/ that can be reached from ``pages``."""
    waiting, known = list(pages), set(pages)
    while waiting:
        page = waiting.pop()
        for link in LINK.findall(CODE_BLOCK.sub('', page.read_text())):
            target = (page.parent / link).resolve()
            if target.is_file() and target not in known:
                known.add(target)
                waiting += [target] if target.suffix == '.md' else []
    return sorted(path for path in known if DOCS not in path.parents)


def address(path: Path) -> str:
    """Path within the site of a file of the repository."""
    if DOCS in path.parents:
        return path.relative_to(DOCS).as_posix()
    name = path.relative_to(ROOT).as_posix().removesuffix('.md')
    return f'repository/{name}.md'.replace('/README.md', '/index.md')


def rewritten(markdown: str, path: Path) -> str:
    """Text of the page ``path``, its relative links outside code blocks as in the site."""
    start = os.path.dirname(address(path))

    def moved(link: re.Match) -> str:
        target = (path.parent / link[1]).resolve()
        return os.path.relpath(address(target), start) if target.is_file() else link[1]

    parts = CODE_BLOCK.split(markdown)  # text and code in turn
    return ''.join(part if n % 2 else LINK.sub(moved, part) for n, part in enumerate(parts))


def content(path: Path) -> str:
    """The page that shows a file; source is left out of the search."""
    text = path.read_text()
    if path.suffix == '.md':
        return rewritten(text, path)
    title = path.relative_to(ROOT).as_posix()
    head = f'---\nsearch:\n  exclude: true\n---\n\n# {title}\n\n'
    return f'{head}```{path.suffix[1:]}\n{text}```\n'
