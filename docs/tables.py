"""Tables and lists of methods: README, docs/methods.md, the navigation of the site."""

from __future__ import annotations

from source import Method, detectors, families


def cell(text: str) -> str:
    return text.replace('|', '\\|')


def row(*cells: str) -> str:
    return '| ' + ' | '.join(cells) + ' |'


def in_words(m: Method, named: tuple[str, ...]) -> str:
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
    """Methods for detectors; of the others, those for segmentors; then the rest."""
    left, groups = list(methods), {}
    for title, kinds in (
        ('Detectors', {*detectors(), 'weak'}),
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
    lines = [row('method', 'paper', 'mechanism', 'for'), '|---|---|---|---|']
    for m in methods:
        link = f'[{m.name}](methods/{m.page}.md)'
        lines.append(row(link, m.paper, cell(m.compares.rstrip('.')), in_words(m, m.families)))
    return '\n'.join(lines)


def full_table(methods: list[Method]) -> str:
    """The table of ``docs/methods.md``: one column for each family and ability."""
    head = ['method', 'paper', *families().values(), 'teacher', 'ground truth', 'configs']
    lines = [row(*head), '|---' * len(head) + '|']
    for m in methods:
        lines.append(
            row(
                f'[{m.name}](methods/{m.page}.md)',
                m.paper,
                *(_works(m, name) for name in families()),
                'needed' if m.needs_teacher else 'no',
                'needed' if m.needs_ground_truth else 'no',
                str(len(m.configs) or ''),
            )
        )
    return '\n'.join(lines)
