"""Complaints about options, in one voice."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any


def check_temperature(owner: str, tau: float) -> float:
    """A finite number above 0, else ValueError."""
    if isinstance(tau, bool) or not isinstance(tau, (int, float)) or not math.isfinite(tau):
        raise ValueError(
            f'{owner}: temperature tau must be a finite number above 0, found {tau!r}.'
        )
    if tau <= 0:
        raise ValueError(f'{owner}: temperature tau must be above 0, found {tau}.')
    return float(tau)


def check_choice(owner: str, name: str, value: Any, choices: Iterable[Any]) -> Any:
    """One of ``choices``, else ValueError that lists them."""
    choices = list(choices)
    if value not in choices:
        raise ValueError(f'{owner}: {name} must be one of {choices}, found {value!r}.')
    return value


def check_at_least(owner: str, name: str, value: float, least: float = 0) -> float:
    """A finite number of at least ``least``, else ValueError."""
    if not isinstance(value, (int, float)) or not math.isfinite(value) or value < least:
        raise ValueError(
            f'{owner}: {name} must be a finite number of at least {least}, found {value!r}.'
        )
    return value


def check_factors(owner: str, factors: Any, terms: Iterable[str]) -> dict[str, float]:
    """Finite numbers of at least 0, by the name of a term each, else ValueError."""
    for term, factor in dict(factors or {}).items():
        check_choice(owner, 'a key of factors', term, terms)
        check_at_least(owner, f'factor {term}', factor)
    return dict(factors or {})


def weight_or(default: float, weight: Any) -> Any:
    """The method's own weight where the config names none, also inside a schedule."""
    if weight is None:
        return default
    if isinstance(weight, dict) and 'value' not in weight:
        return {'value': default, **weight}
    return weight
