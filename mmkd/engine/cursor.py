"""Where a run stands in its training data, and the way back there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch.utils.data import DataLoader, get_worker_info
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from mmkd.datasets.loaders import length_of
from mmkd.generators import as_tensor, get_state, set_state, torch_state, warn


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
        start (bytes): torch's random state just before the iterator was made or started again.
        born (bytes): the same, just before the workers were started.
        epoch (int): how often the data were started again (iteration-based training).
    """

    def __init__(self, loader: DataLoader) -> None:
        self.loader = loader
        self.consumed = 0
        self.epoch = 0
        self.fresh = True
        self.start: bytes | None = None
        self.born: bytes | None = None
        self.workers: dict[int, dict] = {}
        if loader.num_workers and not isinstance(loader.collate_fn, CarryState):
            loader.collate_fn = CarryState(loader.collate_fn)

    def begin(self) -> None:
        """Call just before ``iter(loader)``."""
        self.consumed = 0
        self.fresh = self._starts_workers()
        self.start = torch_state()
        if self.fresh:
            self.born = self.start
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
            born=self.born,
            length=length_of(self.loader),
            num_workers=self.loader.num_workers,
            workers=dict(self.workers),
        )

    def resume(self, state: dict) -> Iterator:
        """Iterator over the remaining batches. Torch's random state is undefined afterwards.

        Except at the beginning of an epoch: there it is left alone.
        """
        self.consumed, self.epoch = state['consumed'], state['epoch']
        self.fresh = state['fresh']
        self.workers = self._usable_workers(state)
        if self.consumed and state['start'] is not None:
            # A sampler that asks torch for its seed must get the same one again.
            torch.set_rng_state(as_tensor(state['start']))
        self.start = torch_state()
        self.born = self.start if self.fresh else state.get('born')
        changes: dict[str, Any] = {}
        if not self.fresh:
            # In the interrupted run the workers existed already and drew no seed now.
            changes['generator'] = _generator(self.born)
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


def _generator(state: bytes | None) -> torch.Generator:
    """One that is apart from torch's, and begins there or anywhere."""
    generator = torch.Generator()
    return generator if state is None else generator.set_state(as_tensor(state))


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
