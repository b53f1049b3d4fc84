"""Weights by keyword: those released for a config, the last or the best of a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mmkd.checkpoint.checkpoint_error import CheckpointError
from mmkd.checkpoint.released import released_weights
from mmkd.config import default_work_dir, load_config

NAMES = ('released', 'last', 'best')


def weights_of(checkpoint: str, config: Any) -> str:
    """The file or address behind ``'released'``, ``'last'`` and ``'best'``; anything else as it is.

    ``'last'`` is the newest complete checkpoint of the config's own work dir, ``'best'`` the newest
    that a validation found best.

    Args:
        checkpoint (str): the value in the config.
        config (Any): the path of the config that the weights belong to.

    Raises:
        CheckpointError: a config that is no path; a work dir without such a checkpoint; no
            released weights.
    """
    if checkpoint not in NAMES:
        return checkpoint
    if not isinstance(config, (str, os.PathLike)):
        raise CheckpointError(
            f'checkpoint={checkpoint!r} goes with the path of a config, but config is a '
            f'{type(config).__name__}: name the file.'
        )
    config = os.fspath(config)
    if checkpoint == 'released':
        return released_weights(config)
    folder = load_config(config).get('work_dir') or default_work_dir(config)
    try:
        return newest_in(folder, best=checkpoint == 'best')
    except CheckpointError as error:
        raise CheckpointError(
            f'checkpoint={checkpoint!r} of {config}: {error} Train it first '
            f'(mmkd train {config}), or name the file.'
        ) from None


def newest_in(folder: str, best: bool = False) -> str:
    """Newest complete checkpoint in the folder of a run.

    Args:
        best (bool): of those that a validation found best.

    Raises:
        CheckpointError: there is none; the message has the errors of the files found.
    """
    from mmkd.checkpoint.newest import newest_checkpoint  # which reads, and reading comes here

    if best:
        found = sorted(Path(folder).glob('best_*.pth'), key=lambda path: path.stat().st_mtime)
        path, problems = (str(found[-1]) if found else None), []
    else:
        path, problems = newest_checkpoint(folder)
    if path is None:
        kind = 'best checkpoint (default_hooks.checkpoint.save_best)' if best else 'checkpoint'
        raise CheckpointError(
            f'there is no complete {kind} in {folder}.{"".join(f" {p}" for p in problems[:2])}'
        )
    return path
