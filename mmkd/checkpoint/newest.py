"""The checkpoint from which a run is resumed: the newest usable file in its folder."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mmkd.checkpoint import (
    CheckpointError,
    find_damage,
    not_finite,
    read_checkpoint,
    refuse_not_finite,
)

Found = tuple[tuple[int, int], str]


def newest_checkpoint(folder: str) -> tuple[str | None, list[str]]:
    """Newest usable checkpoint written during training, and the errors of newer ones.

    ``epoch_*.pth`` and ``iter_*.pth`` are looked at, and the file that ``last_checkpoint`` names.
    If that lies elsewhere, it counts only where the folder itself has nothing usable.
    """
    problems: list[str] = []
    groups = list(_numbered(folder).values())
    last = _named_last(folder, problems)
    if last and _lies_in(last, folder) and not any(last in group for group in groups):
        groups.append([last])
    found = [_first_usable(group, problems) for group in groups]
    usable = [one for one in found if one is not None]
    if not usable and last and not _lies_in(last, folder):
        return _beside(last, problems), problems
    return (max(usable)[1] if usable else None), problems


def checkpoint_of(folder: str, iteration: int) -> str | None:
    """A usable checkpoint in a folder that was written after so many iterations."""
    for path in (path for group in _numbered(folder).values() for path in group):
        found = _first_usable([path], [])
        if found is not None and found[0][0] == iteration:
            return path
    return None


def iteration_of(path: str) -> int:
    """Iterations done when a checkpoint was written, which is usable."""
    return read_checkpoint(path, mmap=True)['meta']['iter']


def _beside(last: str, problems: list[str]) -> str | None:
    """The file of another folder, or if it is of no use an older one of its kind."""
    groups = _numbered(os.path.dirname(last)).values()
    older = next((group[group.index(last) :] for group in groups if last in group), [last])
    found = _first_usable(older, problems)
    return found[1] if found else None


def _numbered(folder: str) -> dict[str, list[str]]:
    """Paths by kind, ``epoch`` and ``iter``, newest first."""
    groups: dict[str, list[tuple[int, str]]] = {}
    for path in Path(folder).glob('*.pth'):
        match = re.fullmatch(r'(epoch|iter)_(\d+)\.pth', path.name)
        if match:
            groups.setdefault(match.group(1), []).append((int(match.group(2)), str(path)))
    return {
        kind: [path for _, path in sorted(group, reverse=True)] for kind, group in groups.items()
    }


def _named_last(folder: str, problems: list[str]) -> str | None:
    """The file that ``last_checkpoint`` names, by preference the one of this name in ``folder``."""
    note = os.path.join(folder, 'last_checkpoint')
    if not os.path.isfile(note):
        return None
    try:
        with open(note, 'rb') as file:
            name = file.read(4096).decode(errors='replace').strip()
    except OSError as error:
        problems.append(f'{note} cannot be read ({error.strerror}).')
        return None
    for path in (os.path.join(folder, os.path.basename(name)), name):
        if os.path.isfile(path):
            return path
    if name:
        problems.append(f'{note} names {name[:80]!r}, which is no file.')
    return None


def _lies_in(path: str, folder: str) -> bool:
    return os.path.realpath(os.path.dirname(path)) == os.path.realpath(folder)


def _first_usable(group: list[str], problems: list[str]) -> Found | None:
    for path in group:
        try:
            return _step_of(path), path
        except Exception as error:  # noqa: BLE001  whatever is wrong with it, the next may be good
            reason = str(error).strip() or type(error).__name__
            problems.append(reason if path in reason else f'{path}: {reason}')
    return None


def _step_of(path: str) -> tuple[int, int]:
    """Iterations and epochs done when the file was written.

    Raises:
        CheckpointError, OSError: it is damaged, unsafe, not finite, or no state of a run.
    """
    damage = find_damage(path)
    if damage:
        raise CheckpointError(damage)
    checkpoint = read_checkpoint(path, mmap=True)
    check_resumable(path, checkpoint)
    return checkpoint['meta']['iter'], checkpoint['meta']['epoch']


def check_resumable(path: str, checkpoint: Mapping) -> None:
    """Stop at a file without the state of a run, or with weights that are not finite.

    Raises:
        CheckpointError: which of the two.
    """
    meta = checkpoint.get('meta')
    meta = meta if isinstance(meta, Mapping) else {}
    missing = [key for key in ('epoch', 'iter') if type(meta.get(key)) is not int]
    missing += [k for k in ('message_hub', 'state_dict') if not isinstance(checkpoint.get(k), dict)]
    if missing:
        raise CheckpointError(
            f'cannot resume from {path}: it has no {", ".join(missing)}. It holds weights, not the '
            'state of a run; use it as load_from without resume.'
        )
    seed = meta.get('seed')
    if seed is not None and not (isinstance(seed, (int, np.integer)) and 0 <= seed < 2**32):
        raise CheckpointError(
            f'cannot resume from {path}: its record of the run is not what training writes '
            f'(seed {str(seed)[:20]!r}). Resume from another checkpoint, or train from its '
            'weights, with load_from and without --resume.'
        )
    refuse_not_finite(checkpoint['state_dict'], path)
    refuse_not_finite(_nan_in(checkpoint.get('optimizer')), path)


def _nan_in(optimizer: Any) -> dict[str, Tensor]:
    """Tensors with NaN in the state of an optimiser, by path; infinity is a large number there."""
    found: dict[str, Tensor] = {}
    waiting, seen = [('optimizer', optimizer)], set()
    while waiting:
        name, value = waiting.pop()
        if id(value) in seen:  # in a file made by hand a mapping may hold itself
            continue
        seen.add(id(value))
        if isinstance(value, Mapping):
            waiting += [(f'{name}.{str(key)[:40]}', inner) for key, inner in value.items()]
        elif not_finite({name: value}, strict=True) and bool(value.float().isnan().any()):
            found[name] = value
    return found
