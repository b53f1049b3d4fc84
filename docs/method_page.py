"""The page of a method."""

from __future__ import annotations

from source import Method, families
from tables import cell, in_words, row

NOTE = '<!-- written by docs/generate.py from the source: edit there -->'


def page(methods: list[Method]) -> str:
    """The page of one file in ``mmkd/methods``: one section for each objective in it."""
    first = methods[0]
    compares = first.compares[0].upper() + first.compares[1:]
    title = ', '.join(m.name for m in methods)
    parts = [NOTE, f'# {title}', compares]
    for m in methods:
        parts += [f'## {m.name}'] if len(methods) > 1 else []
        parts += [f'**{m.summary}**', *m.notes, _facts(m), _option_table(m)]
        parts += [f'Refused with a message: {m.refuses}'] if m.refuses else []
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
        ('works for', in_words(m, m.families)),
        ('teacher', ', '.join(families()[name] for name in m.teacher_families)),
        ('works with named taps for', in_words(m, m.named_taps)),
        ('default taps', m.taps),
        ('needs a teacher', 'yes' if m.needs_teacher else 'no'),
        ('needs ground truth', 'yes' if m.needs_ground_truth else 'no'),
        (
            'zero if student and teacher are equal (adapters: identity)',
            'yes' if m.zero_at_equality else 'no',
        ),
        ('two ranks give the gradient of one', 'yes' if m.rank_invariant else 'no'),
    ]
    return '\n'.join(['| | |', '|---|---|', *(row(*fact) for fact in rows if fact[1])])


def _option_table(m: Method) -> str:
    lines = [row('option', 'default', 'meaning'), '|---|---|---|']
    for o in m.options:
        kind = f'({o.kind}) ' if o.kind else ''
        lines.append(row(f'`{o.name}`', f'`{o.default}`', cell(kind + o.meaning)))
    table = '\n'.join(lines) if m.options else ''
    link = f'[{m.base}](../objectives.md#{m.base.lower()})'
    also = f'Also the options of {link}.'
    if m.also is not None:
        names = ', '.join(f'`{name}`' for name in m.also)
        also = f'Also {names}: see {link}.' if m.also else ''
    return '\n\n'.join(filter(None, (table, f'{also} {m.remark}'.strip())))


def _use(methods: list[Method]) -> str:
    lines = [f"        {m.name.lower()}=dict(type='mmkd.{m.name}')," for m in methods]
    return '\n'.join(
        ['```python', 'model = dict(', '    objectives=dict(', *lines, '    ),', ')', '```']
    )
