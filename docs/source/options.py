"""The options of a method: its signature and the section Args of its docstring."""

from __future__ import annotations

import re

from .classes import arguments, signature
from .records import Option
from .text import entries, markdown, section

TIMED = ' May change over the run, see [schedules](../schedules.md#numbers-of-a-method).'


def read_options(
    doc: str, classes: dict, lineage: list[str], facts: dict, base: str
) -> tuple[list[Option], str]:
    """Options documented alone or together, and what is said about those explained elsewhere."""
    defaults = signature(classes, lineage)
    options, remark, weight = [], '', ''
    for entry in entries(section(doc, 'Args')):
        head, _, meaning = entry.partition(': ')
        match = re.fullmatch(r'(\w+(?:, \w+)*) \((.*)\)', head)
        together = match[1].split(', ') if match else []
        if together and set(together) <= set(defaults):
            kind, meaning = match[2], markdown(meaning)
            for name in together:
                more = TIMED if name in facts['scheduled'] else ''
                options.append(Option(name, defaults[name], kind, meaning + more))
        elif head == 'weight':
            weight = markdown(meaning)
        else:  # "student, teacher, weight: see PairObjective. What is special about them."
            remark = markdown(meaning).partition('. ')[2]
    told = {option.name for option in options}
    if 'weight' not in told:
        options.append(_weight(defaults.get('weight', 'None'), weight, facts, base))
    if 'adapt' in defaults and 'adapt' not in told:
        options.append(Option('adapt', defaults['adapt'], '', _see(base)))
    return options, remark


def explained_with_base(
    classes: dict, lineage: list[str], told: set[str]
) -> tuple[str, ...] | None:
    """Arguments that are explained with the base class; None where all of its are taken."""
    args = arguments(classes, lineage)
    if args is None or args.kwarg:
        return None
    return tuple(a.arg for a in args.args[1:] + args.kwonlyargs if a.arg not in told)


def _weight(default: str, meaning: str, facts: dict, base: str) -> Option:
    """The row of the weight: ``None`` in a signature stands for the class's ``default_weight``."""
    published = facts['default_weight']
    if default == 'None' and (published != 1 or not meaning):
        default = repr(published)
    return Option('weight', default, '', f'{meaning} {_see(base)}'.strip())


def _see(base: str) -> str:
    return f'See [{base}](../objectives.md#{base.lower()}).'
