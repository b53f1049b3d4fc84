"""Pairing of maps by methods that compare no channels."""

from __future__ import annotations

from dataclasses import replace

from mmkd.levels import Level
from mmkd.tap import Tap


def channel_free(levels: list[Level] | None, taps: tuple[Tap, ...]) -> list[Level]:
    """The levels as if all had one channel, so that widths may differ and need no adapter.

    A tap that could not be probed is taken for a single map.
    """
    if levels is None:
        return [Level((1, 1, 1), None, str(tap)) for tap in taps]
    return [replace(level, shape=(1, *level.shape[1:])) for level in levels]
