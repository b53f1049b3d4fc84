"""Random states as part of a checkpoint: an interrupted run continues as if nothing had happened.

Nothing here draws a random number or seeds anything, so a run that is never interrupted is the
stock run, bit for bit.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from torch.utils.data import DataLoader, get_worker_info
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from mmkd.registry import HOOKS

KEY = 'random_state'


def get_state(cuda: bool = False) -> dict:
    """State of this process' generators as plain bytes and numbers (safe to load)."""
    _, numbers, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()
    state = dict(
        python=np.array(numbers, dtype=np.uint32).tobytes(),
        python_gauss=gauss,
        numpy=np.asarray(keys, dtype=np.uint32).tobytes(),
        numpy_rest=(int(position), int(has_gauss), float(cached)),
        torch=torch.get_rng_state().numpy().tobytes(),
    )
    if cuda and torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state().numpy().tobytes()
    return state


def set_state(state: dict) -> None:
    """Undo of :func:`get_state`."""
    numbers = np.frombuffer(state['python'], dtype=np.uint32).tolist()
    random.setstate((3, tuple(numbers), state['python_gauss']))
    keys = np.frombuffer(state['numpy'], dtype=np.uint32)
    np.random.set_state(('MT19937', keys, *state['numpy_rest']))
    torch.set_rng_state(_tensor(state['torch']))
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(_tensor(state['cuda']))


def _tensor(raw: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8)


class Batch(dict):
    """An ordinary batch that remembers which worker made it and that worker's random state."""

    worker: tuple[int, dict] | None = None


class CarryState:
    """Collate function whose batches carry the random state of the worker that made them."""

    def __init__(self, collate: Callable) -> None:
        self.collate = collate

    def __call__(self, samples: Any) -> Any:
        batch = self.collate(samples)
        info = get_worker_info()
        if info is None or type(batch) is not dict:
            return batch
        batch = Batch(batch)
        batch.worker = (info.id, get_state())
        return batch


class RestoreWorker:
    """``worker_init_fn`` that continues the random streams of earlier workers."""

    def __init__(self, init_fn: Callable | None, states: dict[int, dict]) -> None:
        self.init_fn, self.states = init_fn, states

    def __call__(self, worker_id: int) -> None:
        if self.init_fn is not None:
            self.init_fn(worker_id)
        # A worker that had delivered nothing yet starts as it did the first time.
        if worker_id in self.states:
            set_state(self.states[worker_id])


class _ResumedIterator(_MultiProcessingDataLoaderIter):
    """Leaves out the first batches, and the turns of the workers that made them."""

    def __init__(self, loader: DataLoader, skip: int) -> None:
        self._skip = skip
        super().__init__(loader)

    def _next_index(self) -> Any:
        skip, self._skip = self._skip, 0
        for _ in range(skip):
            super()._next_index()
            next(self._worker_queue_idx_cycle)
        return super()._next_index()


class Cursor:
    """Where a run stands in its training data, and the way back there.

    Args:
        loader (DataLoader): the training data.

    Attributes:
        consumed (int): batches taken from the current iterator.
        fresh (bool): whether that iterator started workers of its own.
        start (bytes): torch's random state just before the iterator was made.
        epoch (int): how often the data were started again (iteration-based training).
    """

    def __init__(self, loader: DataLoader) -> None:
        self.loader = loader
        self.consumed = 0
        self.epoch = 0
        self.fresh = True
        self.start: bytes | None = None
        self.workers: dict[int, dict] = {}
        if loader.num_workers and not isinstance(loader.collate_fn, CarryState):
            loader.collate_fn = CarryState(loader.collate_fn)

    def begin(self) -> None:
        """Call just before ``iter(loader)``."""
        self.consumed = 0
        self.fresh = self._starts_workers()
        self.start = torch.get_rng_state().numpy().tobytes()
        if self.fresh:
            self.workers.clear()

    def seen(self, batch: Any) -> None:
        """Call with every batch that training gets."""
        self.consumed += 1
        if isinstance(batch, Batch) and batch.worker is not None:
            worker, state = batch.worker
            self.workers[worker] = state

    def finish(self) -> None:
        """Call after the last batch of an epoch."""
        self.consumed = 0

    def _starts_workers(self) -> bool:
        return not (self.loader.persistent_workers and self.loader._iterator is not None)

    def state_dict(self) -> dict:
        """Plain values from which :meth:`resume` continues."""
        return dict(
            consumed=self.consumed,
            epoch=self.epoch,
            fresh=self.fresh if self.consumed else self._starts_workers(),
            start=self.start,
            num_workers=self.loader.num_workers,
            workers=dict(self.workers),
        )

    def resume(self, state: dict) -> Iterator:
        """Iterator over what is left. Torch's random state is undefined afterwards.

        Except at the beginning of an epoch: there it is left alone.
        """
        self.consumed, self.epoch = state['consumed'], state['epoch']
        self.fresh, self.start = state['fresh'], state['start']
        self.workers = self._usable_workers(state)
        if self.consumed and self.start is not None:
            # A sampler that asks torch for its seed must get the same one again.
            torch.set_rng_state(_tensor(self.start))
        changes: dict[str, Any] = {}
        if not self.fresh:
            # In the interrupted run this iterator existed already and drew no seed now.
            changes['generator'] = torch.Generator()
        if self.workers:
            changes['worker_init_fn'] = RestoreWorker(self.loader.worker_init_fn, self.workers)
        with _changed(self.loader, changes):
            return self._make_iterator()

    def _make_iterator(self) -> Iterator:
        if self.loader.num_workers:
            iterator: Any = _ResumedIterator(self.loader, self.consumed)
            if self.loader.persistent_workers:
                self.loader._iterator = iterator
            return iterator
        iterator = self.loader._get_iterator()
        with suppress(StopIteration):
            for _ in range(self.consumed):
                iterator._next_index()
        return iterator

    def _usable_workers(self, state: dict) -> dict[int, dict]:
        if state['num_workers'] == self.loader.num_workers:
            return dict(state['workers'])
        warn(
            f'num_workers is {self.loader.num_workers}, it was {state["num_workers"]} before the '
            'interruption: the same images follow, but with other random augmentation.'
        )
        return {}


@contextmanager
def _changed(loader: DataLoader, values: dict[str, Any]) -> Iterator[None]:
    old = {key: getattr(loader, key) for key in values}
    for key, value in values.items():
        setattr(loader, key, value)
    try:
        yield
    finally:
        for key, value in old.items():
            setattr(loader, key, value)


def warn(message: str) -> None:
    print_log(message, logger='current', level=logging.WARNING)


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
        self.pending: dict | None = None

    def gather_random_state(self, runner: Any) -> None:
        """Collective; mmkd's CheckpointHook calls it on every rank just before it saves."""
        if get_world_size() > 1:
            self.gathered = all_gather_object(_rank_state(runner))

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Rank 0 only; without a gather before, just its own state is known."""
        ranks, self.gathered = self.gathered or [_rank_state(runner)], None
        checkpoint[KEY] = dict(
            ranks=ranks, validated=self.validated, val_workers=_has_val_workers(runner)
        )

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.validated = False

    def after_val_epoch(self, runner: Any, metrics: dict | None = None) -> None:
        self.validated = True

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Hand the states to the training loop, which knows when they are due."""
        if not runner._resume:
            return
        state = checkpoint.get(KEY)
        if state is None:
            warn(
                'The checkpoint holds no random states (was it written by stock mmengine?): '
                'training goes on, but not with the very numbers of the interrupted run.'
            )
            return
        rank, ranks = get_rank(), state['ranks']
        if len(ranks) != get_world_size():
            warn(
                f'The checkpoint holds the random states of {len(ranks)} processes, this run has '
                f'{get_world_size()}: it does not repeat the numbers of the interrupted run.'
            )
        mine = ranks[rank] if rank < len(ranks) else _stranger(ranks[0])
        self.pending = dict(state, **mine)
        self.validated = state['validated']
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


def restore(runner: Any, point: dict) -> None:
    """Set the generators of this process to where the checkpoint left them."""
    if point['main'] is not None:
        set_state(point['main'])
    if point['val_workers'] and runner.val_loop is not None:
        # The interrupted run had its validation workers already and drew no seed for them.
        runner.val_dataloader.generator = torch.Generator()


def _stranger(other: dict) -> dict:
    """For a rank without states of its own: the place in the data is the same on all ranks."""
    return dict(main=None, data=other['data'] and dict(other['data'], workers={}))


def _rank_state(runner: Any) -> dict:
    cursor = getattr(runner.train_loop, 'cursor', None)
    return dict(main=get_state(cuda=True), data=cursor.state_dict() if cursor else None)


def _has_val_workers(runner: Any) -> bool:
    loader = getattr(runner.val_loop, 'dataloader', None)
    return bool(getattr(loader, 'persistent_workers', False) and loader._iterator is not None)
