"""Names in a config: found whatever their case, and answered with the nearest if there are none."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any


def find_name(name: Any, known: Iterable[Any]) -> str | None:
    """The known name itself, or the only one that differs from it in case alone."""
    texts = [text for text in known if isinstance(text, str)]
    if not isinstance(name, str) or name in texts:
        return name if isinstance(name, str) else None
    same = {text for text in texts if text.casefold() == name.casefold()}
    return same.pop() if len(same) == 1 else None


def nearest(name: Any, known: Iterable[Any]) -> str | None:
    """The known name that is spelt most alike, if any is at all."""
    spelt = {text.casefold(): text for text in known if isinstance(text, str)}
    close = difflib.get_close_matches(str(name).casefold(), spelt, n=1, cutoff=0.6)
    return spelt[close[0]] if close else None


def did_you_mean(name: Any, known: Iterable[Any]) -> str:
    """`` Did you mean …?`` for the nearest name, or nothing."""
    close = nearest(name, known)
    return f' Did you mean {close!r}?' if close else ''


def match_options(owner: str, options: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """The options under the names that their owner knows.

    Raises:
        TypeError: one that the owner does not have, or one that is there twice.
    """
    known = list(known)
    found: dict[str, Any] = {}
    for name, value in options.items():
        own = find_name(name, known)
        if own is None:
            raise TypeError(
                f'{owner} has no option {name}; it has {", ".join(known)}.'
                f'{did_you_mean(name, known)}'
            )
        if own in found:
            raise TypeError(f'{owner}: the option {own} is given twice, with other case.')
        found[own] = value
    return found


def options_of(cls: type) -> dict[str, inspect.Parameter]:
    """What a class takes as arguments, those that it hands on to its bases included."""
    found: dict[str, inspect.Parameter] = {}
    for base in inspect.getmro(cls):
        if '__init__' not in vars(base):
            continue
        parameters = list(inspect.signature(vars(base)['__init__']).parameters.values())[1:]
        kinds = [parameter.kind for parameter in parameters]
        named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        found = {p.name: p for p in named} | found
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            break
    return found


def check_flags(cls: type, options: Mapping[str, Any]) -> None:
    """Options that a class declares as ``bool`` must be one: the text 'False' counts as True.

    Raises:
        ValueError: something else.
    """
    known = options_of(cls)
    for name, value in options.items():
        declared = str(known[name].annotation).split(' | ')
        empty = value is None and 'None' in declared
        if declared[0] == 'bool' and not isinstance(value, bool) and not empty:
            raise ValueError(f'{cls.__name__}: {name} must be True or False, found {value!r}.')
