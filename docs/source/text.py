"""Docstrings cut into their parts, as Markdown."""

from __future__ import annotations

import re
import textwrap


def one_line(text: str) -> str:
    return ' '.join(text.split())


def markdown(text: str) -> str:
    """Sphinx roles and double back-quotes as Markdown code."""
    text = re.sub(r':\w+:`~?(?:[\w.]+\.)?(\w+)`', r'`\1`', text)
    return re.sub(r'``(.+?)``', r'`\1`', text)


def paragraphs(text: str) -> list[str]:
    """Paragraphs as Markdown, lists item by item; what is indented after one that ends in ``::``
    becomes a block."""
    found: list[str] = []
    for part in re.split(r'\n{2,}(?=\S)', text):
        prose, _, block = part.partition('::\n')
        items = map(one_line, re.split(r'\n(?=\* )', prose))
        found.append(markdown('\n'.join(items)) + ':' * bool(block))
        if block:
            found.append('```\n' + textwrap.dedent(block).strip('\n') + '\n```')
    return found


def before_sections(doc: str) -> str:
    return re.split(r'\n(?:Args|Raises|Attributes|Returns):\n', doc)[0].strip()


def section(doc: str, title: str) -> str:
    match = re.search(rf'^{title}:\n((?:(?:[ \t].*)?\n?)*)', doc, re.MULTILINE)
    return textwrap.dedent(match[1]).strip('\n') if match else ''


def entries(section: str) -> list[str]:
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
