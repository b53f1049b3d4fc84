"""Which methods suit a pair of networks, found out by trying; for the end of a refusal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from mmkd.families import family_of
from mmkd.families.comparable import Misfit, listed
from mmkd.objective import Objective
from mmkd.options import options_of
from mmkd.registry import MODELS

#: methods to try, those on what is predicted first; as many as :data:`_SHOWN` of each are named
PREDICTIONS = (
    *(
        'CrossKD',
        'LD',
        'DenseKD',
        'GID',
        'Chen2017',
        'OD200F',
        'MimicHead',
        'KD',
        'DKD',
        'SKDPixel',
    ),
    *('KDDETR', 'DETRDistill', 'JudgedQueries', 'MatchedDetections', 'JudgedBoxes', 'MatchedMasks'),
)
FEATURES = ('FGD', 'CWD', 'SKDPair', 'AT', 'Mimic', 'SP')
ALONE = ('ConfidencePenalty', 'LSR', 'TSD', 'LayerSelf')
#: options under which a method may suit where it does not as it is
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    dict(level_map='common'),
    dict(resize='student'),
    dict(factors={'vertex': 0}),
    dict(factors={'prior': 0}),
)
#: taps for a method that has none of its own for these networks
TAPS = (
    'neck[1]',
    ['neck[1]', 'neck[2]'],
    'backbone[-1]',
    ['backbone[-2]', 'backbone[-1]'],
    ['backbone.layer2', 'backbone.layer3'],
)
_SHOWN = 2
#: of student and teacher, which methods with which options were tried, and whether they suit
_KNOWN: WeakKeyDictionary = WeakKeyDictionary()
#: whether a method with some options suits the pair
Suits = Callable[[type[Objective], Mapping[str, Any]], bool]


@contextlib.contextmanager
def offered(
    refused: type[Objective],
    student: nn.Module,
    teacher: nn.Module | None,
    trial: Callable[[Objective], None],
) -> Iterator[None]:
    """Add to a Misfit methods and options that suit the two networks, each of them planned.

    Args:
        refused (type): the method that may be refused.
        teacher (nn.Module | None): None where there is none.
        trial (callable): plans another objective for the same networks, and raises where it cannot.
    """
    try:
        yield
    except Misfit as error:
        known = _KNOWN.setdefault(student, WeakKeyDictionary()).setdefault(teacher or student, {})

        def suits(kind: type[Objective], options: Mapping[str, Any]) -> bool:
            key = (kind, _written(options))
            if key not in known:
                known[key] = _succeeds(trial, kind, options)
            return known[key]

        family = family_of(student)
        advice = _advice(refused, family, teacher is not None, suits, error.prefer)
        raise ValueError('; '.join(filter(None, (str(error).rstrip('.'), advice))) + '.') from None


def _advice(
    refused: type[Objective], family: str, taught: bool, suits: Suits, prefer: tuple[str, ...]
) -> str:
    """Alternatives to a method; empty if nothing fits."""

    def suiting(names: tuple[str, ...]) -> list[str]:
        """The first of these methods that suit the pair, with the options they need for it."""
        kinds = {name: MODELS.get(f'mmkd.{name}') for name in names}
        found: list[str] = []
        for name, kind in kinds.items():
            if kind is not refused and family in kind.families and len(found) < _SHOWN:
                options = _options(kind, suits)
                if options is not None:
                    found.append(f'{name} with {_written(options)}' if options else name)
        return found

    for taps in TAPS if family in refused.named_taps and not prefer else ():
        options = _options(refused, suits, student=taps)
        if options is not None:
            return f'name taps, for instance {_written(options)}'
    if not taught:
        alone = suiting(ALONE)
        none = 'none of the methods that work without a teacher suits it'
        return f'{listed(alone)} {_plural(alone, "suits", "suit")} it' if alone else none
    parts = [
        f'{listed(found)} {_plural(found, "compares", "compare")} {what}'
        for found, what in (
            (suiting(PREDICTIONS), 'predictions'),
            (suiting((*prefer, *FEATURES)), 'features'),
        )
        if found
    ]
    return f'for this pair {", ".join(parts)}' if parts else ''


def _options(kind: type[Objective], suits: Suits, **fixed: Any) -> dict[str, Any] | None:
    """Options under which a method suits the pair, None where it does not."""
    for extra in OPTIONS:
        if set(extra) <= set(options_of(kind)) and suits(kind, fixed | extra):
            return fixed | extra
    return None


def _succeeds(
    trial: Callable[[Objective], None], kind: type[Objective], options: Mapping[str, Any]
) -> bool:
    try:
        trial(kind(**options))
    except Exception:  # whatever is wrong, it is not for this pair
        return False
    return True


def _written(options: Mapping[str, Any]) -> str:
    return ', '.join(f'{key}={value!r}' for key, value in options.items())


def _plural(names: list[str], one: str, many: str) -> str:
    return one if len(names) == 1 else many
