"""Tables of measured studies in docs/results.md, from the records in docs/studies/."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tables import cell, row

HEAD = ('gain on plain ± std', 'share of the gap', 'step', 'memory', 'minutes')


def keep(work_dir: Path, title: str, folder: Path) -> Path:
    """Copy the record of a finished study into the repository, under its title.

    Raises:
        FileNotFoundError: the folder has no report of a study.
    """
    source = work_dir / 'report.json'
    if not source.is_file():
        raise FileNotFoundError(f'no {source}: name the work dir of a study that has ended.')
    folder.mkdir(exist_ok=True)
    path = folder / f'{re.sub(r"[^a-z0-9]+", "_", title.lower()).strip("_")}.json'
    record = dict(title=title, **json.loads(source.read_text()))
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + '\n')
    return path


def read_studies(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob('*.json'))]


def study_tables(records: list[dict[str, Any]]) -> str:
    """A section for each record: how it was made, its table, the command of each row."""
    return '\n\n'.join(_section(record) for record in records) or 'None is kept yet.'


def _section(record: dict[str, Any]) -> str:
    pairs = list(dict.fromkeys(one.get('pair', '') for one in record['rows']))
    tables = [_table(record, pair, len(pairs) > 1) for pair in pairs]
    return '\n\n'.join([f'### {record["title"]}', _made(record), *tables, _commands(record)])


def _made(record: dict[str, Any]) -> str:
    jobs, seeds = record['jobs'], len(record['seeds'])
    known = ', '.join(f'{name} {version}' for name, version in record['versions'].items())
    return (
        f'{record["date"]}, {record["device"]}, {jobs} run{"s" * (jobs > 1)} at a time; {known}. '
        f'{seeds} seed{"s" * (seeds > 1)}, last checkpoint.\n\n'
        f'```bash\n{record["command"]}\n```'
    )


def _table(record: dict[str, Any], pair: str, several: bool) -> str:
    own = [one for one in record['rows'] if one.get('pair', '') == pair]
    metric = next((one['metric'] for one in own if one.get('metric')), 'score')
    seeds = ' / '.join(map(str, record['seeds']))
    head = [pair if several else '', f'{metric}, seeds {seeds}', 'mean ± std', *HEAD]
    lines = [row(*head), '|---' * len(head) + '|']
    for one in own:
        cells = _cells(one, record['seeds']) if 'mean' in one else [one['status'], *[''] * 6]
        lines.append(row(cell(one['row']), *map(cell, cells)))
    return '\n'.join(lines)


def _cells(one: dict[str, str], seeds: list[int]) -> list[str]:
    shown = [one[f'seed_{s}'] for s in seeds if f'seed_{s}' in one]
    status = '' if one['status'] == 'done' else f' ({one["status"]})'
    gain = _number(one, 'gain', '+.1f')
    return [
        ' / '.join(f'{float(score):.1f}' for score in shown) + status,
        _number(one, 'mean', '.1f') + _number(one, 'std', '.1f', ' ± '),
        (f'**{gain}**' if gain else '') + _number(one, 'gain_std', '.1f', ' ± '),
        _number(one, 'share_of_gap', '.0%'),
        _number(one, 'step_x_plain', '.2f'),
        _number(one, 'memory_x_plain', '.2f'),
        _number(one, 'minutes', '.1f'),
    ]


def _number(one: dict[str, str], key: str, form: str, before: str = '') -> str:
    return before + format(float(one[key]), form).replace('%', ' %') if key in one else ''


def _commands(record: dict[str, Any]) -> str:
    lines = [one['command'] for one in record['rows'] if one.get('command')]
    code = '\n'.join(lines)
    return (
        '<details>\n<summary>Each row without the study, first seed</summary>\n\n'
        f'```bash\n{code}\n```\n\n</details>'
    )
