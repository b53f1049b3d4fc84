"""Settings of a run, kept in its checkpoints, so that a resumed run can report changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mmengine.config import Config

#: of a config; the rest, such as folders, logs and hooks, does not decide what is learned
SECTIONS = (
    'model',
    'train_dataloader',
    'train_cfg',
    'optim_wrapper',
    'param_scheduler',
    'auto_scale_lr',
    'val_dataloader',
    'val_evaluator',
)
#: how data are loaded, and where weights came from before the run began
IGNORED = (
    *('num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor', 'timeout'),
    *('init_cfg', 'pretrained', 'preflight'),
)
#: which the state in the checkpoint overrules
OVERRULED = ('optim_wrapper.optimizer', 'optim_wrapper.paramwise_cfg', 'param_scheduler')
OPTIMIZER = ('optim_wrapper', 'optimizer', 'type')
SHOWN = 6


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The deciding part of a config, as plain values."""
    found = {key: config[key] for key in SECTIONS if config.get(key) is not None}
    return plain(found, lambda key, _: key in IGNORED)


def plain(value: Any, left_out: Callable[[str, Any], bool]) -> Any:
    """A part of a config as plain values; of objects and classes their import path.

    Args:
        left_out (Callable): whether the entry of a key and a value does not count; those whose
            key begins with an underscore never do.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Config):
        value = value._cfg_dict
    if isinstance(value, Mapping):
        named = {str(key): item for key, item in value.items()}
        return {
            key: plain(item, left_out)
            for key, item in named.items()
            if not key.startswith('_') and not left_out(key, item)
        }
    if isinstance(value, (list, tuple)):
        return [plain(item, left_out) for item in value]
    kind = value if hasattr(value, '__qualname__') else type(value)
    return f'{kind.__module__}.{kind.__qualname__}'


def report_changes(before: Any, now: Mapping[str, Any]) -> list[str]:
    """One or two lines for the log; none if nothing changed or nothing is known.

    Args:
        before (dict): :func:`settings_of` the interrupted run, from a file that may say anything.
        now (dict): that of this run.

    Raises:
        ValueError: another kind of optimiser, which cannot use the state of the old one.
    """
    if not isinstance(before, dict) or not before or not now:
        return []
    kinds = [_entry(settings, OPTIMIZER) for settings in (before, now)]
    if all(kinds) and kinds[0] != kinds[1]:
        raise ValueError(
            f'cannot resume: the optimiser was {_short(kinds[0])} and is {_short(kinds[1])} now. '
            'Resume with the same one, or take the weights alone: load_from without resume.'
        )
    found = dict(changes(before, now))
    if not found:
        return []
    more = f'; and {len(found) - SHOWN} more' if len(found) > SHOWN else ''
    shown = '; '.join(f'{path} {change}' for path, change in list(found.items())[:SHOWN])
    lines = [f'The config is not that of the interrupted run: {shown}{more}.']
    overruled = [path for path in found if path.startswith(OVERRULED)]
    if overruled:
        lines.append(
            f'Optimiser and schedules go on as in the checkpoint: {overruled[0]}'
            f'{" and the like change" if len(overruled) > 1 else " changes"} nothing. To apply it, '
            'take the weights alone: load_from without resume.'
        )
    return lines


def _entry(settings: Mapping, path: tuple[str, ...]) -> Any:
    for key in path:
        settings = settings.get(key, {}) if isinstance(settings, Mapping) else {}
    return settings


def changes(before: Any, now: Any, path: str = '') -> Iterator[tuple[str, str]]:
    """(path, values) for each difference of two trees of plain values."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            place = f'{path}.{_name(key)}'.lstrip('.')
            if key not in now:
                yield place, f'{_short(before[key])} is gone'
            elif key not in before:
                yield place, f'is new, {_short(now[key])}'
            else:
                yield from changes(before[key], now[key], place)
    elif _are_lists_of_settings(before, now):
        for i, (a, b) in enumerate(zip(before, now, strict=True)):
            yield from changes(a, b, f'{path}[{i}]')
    elif before != now:
        yield path, f'{_short(before)} -> {_short(now)}'


def _are_lists_of_settings(before: Any, now: Any) -> bool:
    lists = isinstance(before, list) and isinstance(now, list) and len(before) == len(now)
    return lists and all(isinstance(item, dict) for item in [*before, *now])


def _name(key: Any) -> str:
    text = str(key)
    return text[:60] if text.isprintable() else repr(text)[:60]


def _short(value: Any) -> str:
    """A value in at most forty characters; of a mapping its type, or nothing but its braces."""
    if isinstance(value, dict):
        return str(value.get('type', '{…}'))[:40]
    text = repr(value)
    return text if len(text) <= 40 else f'{text[:37]}…'
