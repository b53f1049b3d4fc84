"""The first page of the project is short, and its scores are those of the pages that explain them."""

import re

from messages import ROOT

README = (ROOT / 'README.md').read_text()
MEASURED = [(ROOT / 'docs' / f'{name}.md').read_text() for name in ('results', 'demo')]
SCORE = re.compile(r'\d+\.\d')


def test_it_fits_two_screens():
    assert len(README.splitlines()) <= 110


def test_both_commands_are_on_the_first_screen():
    start = '\n'.join(README.splitlines()[:12])
    assert 'make demo' in start and 'make test' in start


def test_its_scores_are_on_the_pages_that_explain_them():
    """Each row of the table, number by number: in the lines of its method, its teacher, its baseline."""
    rows = re.findall(
        r'^\| ([^|]+) \| (\w+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$', README, re.M
    )
    rows = [row for row in rows if row[1] != 'method']
    assert len(rows) == 6
    for data, method, teacher, plain, distilled, gain in rows:
        section = next(part for part in sections() if data.split(',')[0] in part.splitlines()[0])
        for score in SCORE.findall(teacher):
            assert any(score in line for line in lines(section, 'teacher')), (data, score)
        for name, cell in (('plain(?: student)?', plain), (method, distilled), (method, gain)):
            scores = SCORE.findall(cell)
            assert any(set(scores) <= set(SCORE.findall(line)) for line in lines(section, name)), (
                data,
                cell,
            )


def sections():
    """Pages, cut at their headings; the demo's page is one."""
    results, demo = MEASURED
    return [*re.split(r'^## ', results, flags=re.MULTILINE), 'synthetic scenes\n' + demo]


def lines(section, name):
    """Lines of a table or of a log that begin with ``name``."""
    return [line for line in section.splitlines() if re.match(rf'\|? ?{name}\b', line)]
