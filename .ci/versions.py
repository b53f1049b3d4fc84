#!/usr/bin/env python3
"""Writes into docs/installation.md with which versions the tests ran: versions.py NAME=VENV ...

All tests (`make test`) leave their result in VENV/.setup/tests.xml. A row for which there is no
result keeps the one that it has.
"""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

PAGE = Path(__file__).resolve().parents[1] / 'docs' / 'installation.md'
START, END = '<!-- versions: written by .ci/versions.py -->\n', '<!-- /versions -->'
HEAD = ('', 'torch', 'Python', "mmcv's operators", 'device', 'tests', 'on')
LOOK = """
import json, platform
from mmkd.environment import report
found = {name: value for name, value, _ in report()}
print(json.dumps(found | {'machine': f'{platform.system()} {platform.machine()}'}))
"""


def result(file: Path) -> tuple[str, str]:
    """How the tests ended, and on which day; from the XML that pytest writes."""
    suite = ElementTree.parse(file).getroot().find('testsuite')
    counts = {name: int(suite.get(name)) for name in ('failures', 'errors', 'skipped')}
    failed = counts['failures'] + counts['errors']
    passed = int(suite.get('tests')) - failed - counts['skipped']
    words = {'passed': passed, 'failed': failed, 'skipped': counts['skipped']}
    text = ', '.join(f'{count} {word}' for word, count in words.items() if count)
    return text, suite.get('timestamp')[:10]


def row(name: str, found: dict[str, str], tests: str, day: str) -> list[str]:
    """The cells of one environment; `found` is what mmkd.environment reports."""
    cuda = found['CUDA']
    return [
        name,
        found['torch'].removeprefix('torch '),
        f'{found["python"]}, {found["machine"]}',
        found['mmcv operators'].partition(';')[0],
        'CPU' if cuda.startswith('none') else cuda.partition(': ')[2],
        tests,
        day,
    ]


def tested(name: str, venv: Path) -> list[str] | None:
    """The row of an environment, `None` where its tests did not run to their end."""
    file = venv / '.setup' / 'tests.xml'
    if not file.exists():
        return None
    command = [venv / 'bin' / 'python', '-c', LOOK]
    done = subprocess.run(command, cwd=PAGE.parents[1], check=True, stdout=subprocess.PIPE)
    return row(name, json.loads(done.stdout.splitlines()[-1]), *result(file))


def write(page: Path, new: list[list[str]]) -> str:
    """Replace the rows of that name in the page's table; returns the table."""
    before, _, rest = page.read_text(encoding='utf-8').partition(START)
    table, _, after = rest.partition(END)
    rows = {}
    for line in table.strip().splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip('|').split('|')]
        rows[cells[0]] = cells
    rows |= {cells[0]: cells for cells in new}
    lines = [f'| {" | ".join(cells)} |' for cells in (HEAD, *rows.values())]
    lines.insert(1, '|---' * len(HEAD) + '|')
    table = '\n'.join(lines) + '\n'
    # Python-Markdown takes a table for one behind a blank line only.
    page.write_text(f'{before}{START}\n{table}\n{END}{after}', encoding='utf-8')
    return table


def main(arguments: list[str]) -> None:
    rows = []
    for argument in arguments:
        name, _, venv = argument.partition('=')
        cells = tested(name, Path(venv))
        if cells:
            rows.append(cells)
        else:
            print(f'{name}: not tested this time (no result of all tests in {venv})')
    print(write(PAGE, rows), end='')


if __name__ == '__main__':
    main(sys.argv[1:])
