"""``--cfg-options``: a key that is misspelt would be added to the config and change nothing."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Mapping
from logging import WARNING
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import Runner

#: what may be new at the top of a config: mmengine reads it, and has a default
_TOP = {
    *inspect.signature(Runner.__init__).parameters,
    *(
        'auto_scale_lr',
        'custom_imports',
        'data_root',
        'find_unused_parameters',
        'model_wrapper_cfg',
    ),
    *('runner_type', 'tta_model', 'tta_pipeline', 'verbose'),
}


def check_overrides(keys: Iterable[str], config: Config, who: str = '--cfg-options') -> None:
    """Look for each dotted key in the config.

    Args:
        who (str): what named the keys, for messages.

    Raises:
        ValueError: a key that is not there, but differs by one slip from one that is; the number of
            an entry in a list that is not there.
    """
    for key in keys:
        place: Any = config._cfg_dict
        parts = key.split('.')
        for depth, part in enumerate(parts):
            if isinstance(place, (list, tuple)) and part.isdigit() and int(part) < len(place):
                place = place[int(part)]
            elif isinstance(place, Mapping) and part in place:
                place = place[part]
            else:
                if ''.join(parts[depth + 1 : depth + 2]).isdigit():
                    _refuse_entry(key, '.'.join(parts[: depth + 1]), parts[depth + 1], who)
                of_stages = part == 'options' and 'stages' in config  # read by each stage
                if isinstance(place, Mapping) and (depth or part not in _TOP) and not of_stages:
                    _check_new(key, part, depth, place, who)
                break


def check_names(config: Config) -> None:
    """Refuse a name at the top of a config that is, but for one slip, one that mmengine reads.

    Other names may be variables of the file; so may a plural, such as ``models``, and ``mode``.
    What a new-style config imports, such as ``OptimWrapper``, is none of them.

    Raises:
        ValueError: with the name that is meant.
    """
    for key in config.keys() - set(getattr(config, '_imported_names', ())):
        near = next((name for name in _TOP if key not in _TOP and one_slip(key, name)), None)
        if near and key not in (f'{near}s', 'mode'):
            raise ValueError(
                f'{config.filename} has {key!r}, which nothing reads. Did you mean {near!r}? If it '
                'is a variable of the file, give it another name.'
            )


def _refuse_entry(key: str, missing: str, number: str, who: str) -> None:
    raise ValueError(
        f'{who} {key}: the config has no list {missing}, so it has no entry {number}. Write the '
        'list into a config file.'
    )


def _check_new(key: str, part: str, depth: int, place: Mapping[str, Any], who: str) -> None:
    parts = key.split('.')
    known = [name for name in (*place, *(() if depth else _TOP)) if isinstance(name, str)]
    near = next((name for name in known if one_slip(part, name)), None)
    if near:
        right = '.'.join([*parts[:depth], near, *parts[depth + 1 :]])
        raise ValueError(
            f'{who} {key}: the config has no {part!r} here. Did you mean {right}? If the '
            'key is meant to be new, write it into a config file.'
        )
    built = (['model', 'teacher'], ['model', 'objectives'])  # whoever is built refuses it
    checked = 'type' in place or parts[:2] in built
    if not checked:
        where = '.'.join(parts[:depth]) or 'The config'
        print_log(
            f'{who} {key}: {part!r} is new. {where} had no such key, so it may do nothing.',
            logger='current',
            level=WARNING,
        )


def one_slip(one: str, other: str) -> bool:
    """Whether two names differ in case alone, or by one letter added, lost, wrong or swapped."""
    one, other = one.casefold(), other.casefold()
    if one == other:
        return True
    if {one, other} == {'type', 'dtype'}:  # many classes take both, AmpOptimWrapper for one
        return False
    same = len(os.path.commonprefix([one, other]))
    a, b = one[same:], other[same:]
    end = len(os.path.commonprefix([a[::-1], b[::-1]]))
    a, b = a[: len(a) - end], b[: len(b) - end]
    numbered = (a + b).isdigit()  # stage1, stage2
    slip = max(len(a), len(b)) == 1 or (len(a) == 2 and a == b[::-1])
    return slip and not numbered and min(len(one), len(other)) >= 4
