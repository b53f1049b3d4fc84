"""Which part of a dataset a run says that it trains on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmkd.config import type_name

Part = tuple[int | str, int | None]


def shard_in(config: Any) -> Part | None:
    """``(index, of)`` of the ``mmkd.Shard`` somewhere in a config, None without one."""
    if isinstance(config, Mapping):
        if type_name(config) == 'Shard':
            index, of = config.get('index', 0), config.get('of')
            index = index if isinstance(index, str) else int(index)
            return index, None if of is None else int(of)
        inner: Any = config.values()
    else:
        plain = isinstance(config, Sequence) and not isinstance(config, str)
        inner = config if plain else ()
    return next((found for one in inner if (found := shard_in(one)) is not None), None)


def called(shard: Part | None) -> str:
    """A part in a message."""
    return 'a whole dataset' if shard is None else f'shard {shard[0]} of {shard[1]}'
