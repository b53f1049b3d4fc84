"""Options of a config: found in any case, checked, and refused in one voice."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

from mmkd.names import did_you_mean, find_name


def _factors(*terms: str, **renamed: str) -> dict[str, str]:
    terms_of = dict(zip(terms, terms, strict=True)) | renamed
    return {old: f"factors={{'{term}': …}}" for old, term in terms_of.items()}


#: options that had another name before 1.0, by their owner: refused, with the name of today
RENAMED: dict[str, dict[str, str]] = {
    'CIRKDMemory': {'compat_queue': 'variant'},
    'CrossKD': {'hold': 'variant'} | _factors('classes', 'boxes'),
    'CSCACE': _factors('csc', 'ace'),
    'DarkRank': {'variant': 'transfer'},
    'DIST': _factors('inter', 'intra'),
    'GID': {'form': 'feature_variant', 'score': 'score_variant'}
    | _factors('feature', 'relation', 'classes', 'boxes'),
    'IRG': {'form': 'variant'} | _factors('vertex', 'edge', 'transform', 'edge_transform'),
    'KA': _factors('affinity', adapt='adaptation'),
    'LD': {'region': 'variant'} | _factors('main', 'valuable', 'classes'),
    'MimicHead': _factors(alpha_class='classes', alpha_box='boxes'),
    'PKT': {'diagonal': 'variant'},
    'RKD': _factors('distance', 'angle'),
    'SKDHolistic': {'variant': 'gan_type'},
    'TSL': _factors(prob_weight='prob', consistency_weight='consistency'),
}


def check_number(
    owner: str,
    name: str,
    value: Any,
    least: float | None = None,
    most: float | None = None,
    *,
    above: float | None = None,
    below: float | None = None,
    whole: bool = False,
    optional: bool = False,
) -> Any:
    """A number that an option can take, else ValueError; every numeric option passes here.

    Never a number: NaN, infinity, True, text.

    Args:
        owner (str): who has the option, for the message; may be empty.
        name (str): the option.
        value (Any): the given value.
        least, most (float | None): bounds that are allowed themselves.
        above, below (float | None): bounds that are not.
        whole (bool): no fractions; ``3.0`` is taken for 3.
        optional (bool): None is allowed, and means what the option's owner says.

    Returns:
        float | int | None: the value as it is, an int if ``whole``.
    """
    if value is None and optional:
        return None
    number = isinstance(value, Real) and not isinstance(value, bool)
    if number:
        largest = 2**63 - 1 if whole else sys.float_info.max
        fits = (
            abs(value) <= largest  # not so for NaN
            and (least is None or value >= least)
            and (most is None or value <= most)
            and (above is None or value > above)
            and (below is None or value < below)
            and not (whole and value % 1)
        )
        if fits:
            return int(value) if whole else value
    owner = f'{owner}: ' if owner else ''
    bounds = _in_words(least, most, above, below) + ', or None' * optional
    kind = 'whole' if whole else 'finite'
    raise ValueError(f'{owner}{name} must be a {kind} number{bounds}, found {value!r}.')


def _in_words(
    least: float | None, most: float | None, above: float | None, below: float | None
) -> str:
    if least is not None and most is not None:
        return f' from {least} to {most}'
    lower = '' if least is None else f'of at least {least}'
    lower = lower if above is None else f'above {above}'
    upper = '' if most is None else f'of at most {most}' if not lower else f'at most {most}'
    upper = upper if below is None else f'below {below}'
    return ''.join(f' {part}' for part in (' and '.join(filter(None, (lower, upper))),) if part)


def check_temperature(owner: str, tau: Any, name: str = 'tau', optional: bool = False) -> Any:
    """A float above 0, else ValueError; None stays None where it is ``optional``."""
    tau = check_number(owner, f'temperature {name}', tau, above=0, optional=optional)
    return tau if tau is None else float(tau)


def check_choice(owner: str, name: str, value: Any, choices: Iterable[Any]) -> Any:
    """One of ``choices``, in any case, else a ValueError that lists them."""
    choices = list(choices)
    found = (find_name(value, choices) or value) if isinstance(value, str) else value
    if isinstance(found, bool) or found not in choices:
        raise ValueError(
            f'{owner}: {name} must be one of {choices}, found {value!r}.'
            f'{did_you_mean(value, choices)}'
        )
    return found


def check_list(owner: str, name: str, value: Any) -> list[Any]:
    """The entries of a list, else ValueError; text is none, though it has letters."""
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping)):
        return list(value)
    raise ValueError(f'{owner}: {name} must be a list, found {value!r}.')


def check_size(owner: str, size: Any) -> tuple[int, int]:
    """Height and width, both whole and positive; a single number is both.

    Raises:
        ValueError: something else.
    """
    sides = [size] * 2 if isinstance(size, int) else check_list(owner, 'size', size)
    if len(sides) != 2:
        raise ValueError(f'{owner}: size must be a height and a width, found {size!r}.')
    height, width = (check_number(owner, 'size', side, 1, whole=True) for side in sides)
    return height, width


def check_normalisation(owner: str, mean: Any, std: Any) -> tuple[list[float], list[float]]:
    """Means and deviations of RGB from 0 to 255.

    Raises:
        ValueError: not three numbers each; a deviation that is not above 0.
    """
    means = [check_number(owner, 'mean', x) for x in check_list(owner, 'mean', mean)]
    stds = [check_number(owner, 'std', x, above=0) for x in check_list(owner, 'std', std)]
    for name, found in (('mean', means), ('std', stds)):
        if len(found) != 3:
            raise ValueError(
                f'{owner}: {name} must be three numbers, of red, green and blue from 0 to 255, '
                f'found {found}.'
            )
    return [float(x) for x in means], [float(x) for x in stds]


def check_factors(owner: str, factors: Any, defaults: Mapping[str, float]) -> dict[str, float]:
    """Factor of each term, the default one where ``factors`` has none.

    Args:
        owner (str): the method, for messages.
        factors (Mapping[str, float] | None): factors by the name of a term; 0 leaves a term out.
        defaults (Mapping[str, float]): factors of all terms.

    Raises:
        ValueError: no mapping; an unknown term; a factor below 0 or not finite; all of them 0.
    """
    terms = list(defaults)
    if factors is not None and not isinstance(factors, Mapping):
        raise ValueError(
            f'{owner}: factors must be a mapping of numbers with the keys {", ".join(terms)}, '
            f'found {factors!r}.'
        )
    given = {
        check_choice(owner, 'a key of factors', term, terms): check_number(
            owner, f'factor {term}', factor, 0
        )
        for term, factor in dict(factors or {}).items()
    }
    chosen = {**defaults, **given}
    if not any(chosen.values()):
        raise ValueError(f'{owner}: the factors of all terms ({", ".join(terms)}) are 0.')
    return chosen


def weight_or(default: float, weight: Any) -> Any:
    """The method's own weight where the config names none, also inside a schedule."""
    if weight is None:
        return default
    if isinstance(weight, dict) and 'value' not in weight:
        return {'value': default, **weight}
    return weight


def match_options(owner: str, options: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """The options under their owner's names.

    Raises:
        TypeError: one that the owner does not have, or one that is there twice.
    """
    known = list(known)
    found: dict[str, Any] = {}
    for name, value in options.items():
        own = find_name(name, known)
        if own is None and name in RENAMED.get(owner, {}):
            now = RENAMED[owner][name]
            raise TypeError(f'{owner} has no option {name}; it is now called {now}.')
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
    """The arguments of a class, including those that it passes to its bases."""
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


def check_given(cls: type, options: Mapping[str, Any]) -> None:
    """Arguments of a class without a default must be given, else TypeError."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    needed = [
        name
        for name, one in inspect.signature(cls).parameters.items()
        if one.default is inspect.Parameter.empty and one.kind in named
    ]
    missing = [name for name in needed if name not in options]
    if missing:
        found = ', '.join(options) or 'none'
        raise TypeError(f'{cls.__name__} needs {", ".join(missing)}; given: {found}.')


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


def read_options(cls: type, entry: Mapping[str, Any], owner: str | None = None) -> dict[str, Any]:
    """The arguments of a class from its config entry; ``type`` is none of them.

    Args:
        owner (str | None): whose options they are, for messages; None: the class.

    Raises:
        TypeError: see :func:`match_options` and :func:`check_given`.
        ValueError: see :func:`check_flags`.
    """
    given = {key: value for key, value in entry.items() if key not in ('type', '_scope_')}
    options = match_options(owner or cls.__name__, given, options_of(cls))
    check_given(cls, options)
    check_flags(cls, options)
    return options
