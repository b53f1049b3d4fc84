"""Random states as part of a checkpoint: an interrupted run repeats the uninterrupted one.

Nothing here draws a random number or seeds anything, so a run that is never interrupted is the
stock run, bit for bit.
"""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook

from mmkd.borrowed import unwrapped
from mmkd.checkpoint import CheckpointError
from mmkd.engine.module_state import STREAM, get_module_state, set_module_state
from mmkd.engine.settings import settings_of
from mmkd.generators import get_state, is_state, set_state, warn
from mmkd.registry import HOOKS

KEY = 'random_state'


@HOOKS.register_module()
class RandomStateHook(Hook):
    """Puts random states and the place in the data into checkpoints, and back when resuming.

    :class:`mmkd.Runner` registers it by itself. mmkd's training loops do the restoring at the
    right moment; under any other loop only the generators of the main process are restored.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self.gathered: list[dict] | None = None
        self.validated = False
        self.val_workers = False
        self.pending: dict | None = None

    def gather_random_state(self, runner: Any) -> None:
        """Collective; mmkd's CheckpointHook calls it on every rank just before it saves."""
        if get_world_size() > 1:
            self.gathered = all_gather_object(_rank_state(runner))

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Rank 0 only; without a gather before, just its own state is known."""
        ranks, self.gathered = self.gathered or [_rank_state(runner)], None
        self.val_workers = self.val_workers or _has_val_workers(runner)
        checkpoint['meta']['settings'] = settings_of(runner.cfg)
        checkpoint[KEY] = dict(
            ranks=ranks,
            validated=self.validated,
            val_workers=self.val_workers,
            alive=sorted(_alive(runner)),
        )

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.validated = False

    def after_val_epoch(self, runner: Any, metrics: dict | None = None) -> None:
        self.validated = True

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Pass the states to the training loop, which restores them at the right time."""
        if not runner._resume:
            return
        state = checkpoint.get(KEY)
        if state is None:
            warn(
                'The checkpoint holds no random states (was it written by stock mmengine?): '
                'training continues, but does not repeat the numbers of the interrupted run.'
            )
            return
        rank, ranks = get_rank(), state['ranks']
        if len(ranks) != get_world_size():
            warn(
                f'The checkpoint holds the random states of {len(ranks)} processes, this run has '
                f'{get_world_size()}: it does not repeat the numbers of the interrupted run.'
            )
        mine = ranks[rank] if rank < len(ranks) else _stranger(ranks[0])
        _check_sane(mine, checkpoint['meta']['iter'])
        self.pending = dict(state, **mine)
        set_module_state(unwrapped(runner.model), mine.get('modules'))
        # What this run is told it hands on: it has not seen it happen.
        self.validated, self.val_workers = state['validated'], state['val_workers']
        _alive(runner).update(state.get('alive', ()))
        if hasattr(runner.train_loop, 'point') and mine['data'] is not None:
            runner.train_loop.point, self.pending = self.pending, None

    def before_train(self, runner: Any) -> None:
        if self.pending is not None:
            warn(
                f'{type(runner.train_loop).__name__} is not a training loop of mmkd: only the '
                'random states of the main process are restored.'
            )
            restore(runner, self.pending)
            self.pending = None


def _check_sane(mine: dict, iterations: int) -> None:
    """Stop at states that would crash the process or keep it counting.

    Raises:
        CheckpointError: no run has written them.
    """
    main, data = mine['main'], mine['data'] or dict(consumed=0, workers={})
    states = [*data['workers'].values(), *([] if main is None else [main])]
    states += [v for k, v in (mine.get('modules') or {}).items() if k.endswith(f'.{STREAM}')]
    if not all(map(is_state, states)) or not 0 <= data['consumed'] <= iterations:
        raise CheckpointError(
            'The random states in the checkpoint are damaged: no run writes such ones. Resume from '
            'another checkpoint, or train from its weights, with load_from and without --resume.'
        )


def restore(runner: Any, point: dict) -> None:
    """Set the generators of this process to where the checkpoint left them."""
    if point['main'] is not None:
        set_state(point['main'])
    if point['val_workers'] and runner.val_loop is not None:
        # The interrupted run had its validation workers already and drew no seed for them.
        runner.val_dataloader.generator = torch.Generator()


def _alive(runner: Any) -> set[str]:
    """Terms that the guard has seen non-zero; one that becomes zero later is not an error."""
    guard = getattr(unwrapped(runner.model), 'guard', None)
    return guard.alive if guard else set()


def _stranger(other: dict) -> dict:
    """For a rank without states of its own: the place in the data is the same on all ranks."""
    return dict(other, main=None, data=other['data'] and dict(other['data'], workers={}))


def _rank_state(runner: Any) -> dict:
    cursor = getattr(runner.train_loop, 'cursor', None)
    return dict(
        main=get_state(cuda=True),
        data=cursor.state_dict() if cursor else None,
        modules=get_module_state(unwrapped(runner.model)),
    )


def _has_val_workers(runner: Any) -> bool:
    loader = getattr(runner.val_loop, 'dataloader', None)
    return bool(getattr(loader, 'persistent_workers', False) and loader._iterator is not None)
