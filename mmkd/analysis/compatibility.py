"""The page of tools/compatibility.py: methods by pairs, and disagreements of plan and step."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePath
from typing import Any

from mmkd.analysis.fits import first_sentence, written
from mmkd.version import __version__

PACKAGES = {
    'torch': ('torch',),
    'mmcv': ('onedl-mmcv', 'mmcv'),
    'mmengine': ('onedl-mmengine', 'mmengine'),
    'mmdet': ('onedl-mmdetection', 'mmdet'),
    'mmseg': ('onedl-mmsegmentation', 'mmsegmentation'),
}


def page(found: Sequence[dict[str, Any]]) -> tuple[str, list[str]]:
    """The page in markdown, and every fault: crash, disagreement of plan and step, wrong advice.

    Args:
        found (Sequence[dict]): what ``try_pair`` of tools/compatibility.py returned for each pair.
    """
    faults = [fault for one in found for fault in faults_of(one)]
    lines = [*_introduction(found, faults)]
    for title, packages in (('Detectors', ('mmdet', 'mmkd')), ('Segmentors', ('mmseg',))):
        some = [one for one in found if one['student'].startswith(packages)]
        if some:
            lines += ['', f'## {title}', '', *_pairs(some), '', *_matrix(some), '', *_refused(some)]
            lines += ['', *_options(some)]
    return '\n'.join(lines) + '\n', faults


def faults_of(one: dict[str, Any]) -> Iterator[str]:
    """Errors in the results of one pair."""
    where = f'{_short(one["student"])} <- {_short(one["teacher"])}'
    verdicts = {fit['method']: fit for fit in one['fits']}
    for name, fit in verdicts.items():
        if fit['crash']:
            yield f'{where}: {name} crashes the plan: {fit["crash"]}'
        if fit['step']:
            yield f'{where}: {name} fits, but the step says: {fit["step"]}'
        yield from (f'{where}: {name}: {text}' for text in _wrong_advice(fit, verdicts))


def _wrong_advice(fit: dict[str, Any], verdicts: dict[str, dict]) -> Iterator[str]:
    worked = [options for options, reason in fit['advice'] if not reason]
    for options, reason in fit['advice']:
        if reason and not any(options.items() <= good.items() for good in worked):
            yield f'advised {written(options)}, then {first_sentence(reason)}'
    for name in named_methods(fit['reason'], verdicts):
        if name != fit['method'] and verdicts[name]['reason']:
            yield f'names {name}, which is refused: {first_sentence(verdicts[name]["reason"])}'


def named_methods(message: str, known: Any) -> list[str]:
    """Methods that a message names as an alternative."""
    return [name for name in re.findall(r'\b[A-Z]\w+', message) if name in known]


def _introduction(found: Sequence[dict[str, Any]], faults: list[str]) -> Iterator[str]:
    fits = [fit for one in found for fit in one['fits']]
    works = [fit for fit in fits if not fit['reason'] and not fit['crash']]
    stepped = sum(fit['step'] is not None for fit in works)
    methods = {fit['method'] for fit in fits}
    steps = max((one['steps'] for one in found), default=0)
    yield '# Which method works on which pair'
    yield ''
    yield (
        f'{len(found)} pairs of stock configs, or of mmkd where there are none, {len(methods)} '
        'methods. Each method was planned on each pair with its default options, as '
        '`mmkd plan STUDENT --teacher TEACHER random --method all` does; where it was refused, '
        f'the options that the message offers were tried. {stepped} of {len(works)} combinations '
        f'that fit were then trained for {steps} steps '
        '(two random images of the size in the table, random weights, CPU, float32), all methods '
        'of a pair in one run, under the checks of the first steps. Two-stage students sample 16 '
        'RoIs in an image.'
    )
    yield ''
    disagreed, crashed = (
        sum(text in f for f in faults) for text in ('fits, but the step says', 'crashes the plan')
    )
    advice = len(faults) - disagreed - crashed
    yield (
        f'Plan and step disagreed {disagreed} times, the plan crashed {crashed} times, and '
        f'{advice} pieces of advice did not work.'
    )
    yield ''
    yield (
        'Versions: mmkd '
        + ', '.join([__version__, *(f'{k} {_version(k)}' for k in PACKAGES)])
        + '.'
    )
    yield ''
    yield (
        'Written by `python tools/compatibility.py`; nothing is downloaded. `●` fits as it is, `○` '
        'fits with options (listed below), `·` is refused with a reason, `!` did not do what the '
        'plan says.'
    )


def _version(package: str) -> str:
    for name in PACKAGES[package]:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return 'not installed'


def _pairs(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield '| | student | teacher | pixels |'
    yield '|---|---|---|---|'
    for number, one in enumerate(found, 1):
        yield f'| {number} | {_short(one["student"])} | {_short(one["teacher"])} | {one["size"]} |'


def _matrix(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    cells = _by_method(found)
    yield '| method | ' + ' | '.join(str(n) for n in range(1, len(found) + 1)) + ' |'
    yield '|---' * (len(found) + 1) + '|'
    for method, fits in cells.items():
        if not all(fit['reason'] for fit in fits):
            yield f'| {method} | ' + ' | '.join(_mark(fit) for fit in fits) + ' |'


def _by_method(found: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """For each method its result on each pair."""
    cells: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in found:
        for fit in one['fits']:
            cells[fit['method']].append(fit)
    return cells


def _mark(fit: dict[str, Any]) -> str:
    if fit['crash'] or fit['step']:
        return '!'
    if fit['reason']:
        return '·'
    return '○' if fit['options'] else '●'


def _refused(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    never = [k for k, fits in _by_method(found).items() if all(fit['reason'] for fit in fits)]
    if never:
        yield f'Refused on all of these pairs: {", ".join(never)}.'


def _options(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Which options make which method fit, and on which pairs."""
    yield '| method | options | pairs |'
    yield '|---|---|---|'
    for method, fits in _by_method(found).items():
        places: dict[str, list[str]] = defaultdict(list)
        for number, fit in enumerate(fits, 1):
            if fit['options'] and not fit['reason']:
                places[written(fit['options'])].append(str(number))
        for options, numbers in places.items():
            yield f'| {method} | `{options}` | {", ".join(numbers)} |'


def _short(path: str) -> str:
    return PurePath(path.partition('::')[2]).stem
