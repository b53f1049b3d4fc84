"""mmengine's two training loops, able to continue inside an epoch and with the same numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from mmengine.logging import print_log
from mmengine.runner import loops as mm
from torch import nn

from mmkd.datasets.loaders import length_of
from mmkd.engine.cursor import Cursor
from mmkd.engine.random_state import restore
from mmkd.generators import warn
from mmkd.registry import LOOPS


@LOOPS.register_module()
class EpochBasedTrainLoop(mm.EpochBasedTrainLoop):
    """mmengine's loop; a checkpoint written inside an epoch is continued right there.

    Arguments are those of :class:`mmengine.runner.EpochBasedTrainLoop`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cursor = Cursor(self.dataloader)
        self.point: dict | None = None

    def run(self) -> nn.Module:
        """Launch training."""
        self.runner.call_hook('before_train')
        if self.point is not None and not self.point['data']['consumed']:
            restore(self.runner, self.point)
            if not self.point['validated']:
                self._validate_if_due()
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._validate_if_due()
        self.runner.call_hook('after_train')
        return self.runner.model

    def run_epoch(self) -> None:
        """Iterate one epoch, or the rest of it."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        first, batches = self._batches()
        for idx, batch in enumerate(batches, first):
            self.cursor.seen(batch)
            self.run_iter(idx, batch)
        self.cursor.finish()
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def _batches(self) -> tuple[int, Iterable]:
        point, self.point = self.point, None
        data = point['data'] if point else None
        length = len(self.dataloader)
        if data and data['consumed'] and data.get('length', length) != length:
            warn(
                f'An epoch has {length} iterations now, it had {data["length"]} before the '
                f'interruption (other data or batch size?): epoch {self._epoch + 1} starts from '
                'its beginning.'
            )
            restore(self.runner, point)
            data = None
        if data is None or (data['fresh'] and not data['consumed']):
            self.cursor.begin()
            return 0, self.dataloader
        batches = self.cursor.resume(data)
        if data['consumed']:
            restore(self.runner, point)
        return data['consumed'], batches

    def _validate_if_due(self) -> None:
        self._decide_current_val_interval()
        due = self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs
        if self.runner.val_loop is not None and self._epoch >= self.val_begin and due:
            self.runner.val_loop.run()


class _EndlessIterator(mm._InfiniteDataloaderIterator):
    """mmengine's loop, with its position in the data."""

    def __init__(self, cursor: Cursor) -> None:
        super().__init__(cursor.loader)
        self.cursor = cursor

    def __next__(self) -> Any:
        batch = super().__next__()
        self.cursor.seen(batch)
        return batch

    def _ensure_iterator(self) -> None:
        if self._iterator is None:
            self.cursor.begin()
        super()._ensure_iterator()

    def _reset_iterator(self) -> None:
        self.cursor.begin()
        super()._reset_iterator()
        self.cursor.epoch = self._epoch

    def resume(self, data: dict) -> None:
        """Go to the place described by ``Cursor.state_dict()``."""
        self._epoch = data['epoch']
        for sampler in (self._dataloader.sampler, self._dataloader.batch_sampler):
            sampler = getattr(sampler, 'sampler', sampler)
            if self._epoch and hasattr(sampler, 'set_epoch'):
                sampler.set_epoch(self._epoch)
        self._iterator: Iterator = self.cursor.resume(data)

    def place(self, iteration: int) -> dict:
        """Guess where a run without a recorded place stood after ``iteration`` batches."""
        length = None if self._resolve_sampler() is not None else length_of(self._dataloader)
        epoch, consumed = divmod(iteration, length) if length else (0, iteration)
        return dict(self.cursor.state_dict(), epoch=epoch, consumed=consumed, start=None)


@LOOPS.register_module()
class IterBasedTrainLoop(mm.IterBasedTrainLoop):
    """mmengine's loop; resuming finds the place in the data without loading any.

    Arguments are those of :class:`mmengine.runner.IterBasedTrainLoop`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cursor = Cursor(self.dataloader)
        self.dataloader_iterator = _EndlessIterator(self.cursor)
        self.point: dict | None = None

    def run(self) -> nn.Module:
        """Launch training."""
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        if self._iter > 0:
            self._continue()
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self._validate_if_due()
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model

    def _continue(self) -> None:
        point, self.point = self.point, None
        if self.fast_forward_on_resume:
            warn('fast_forward_on_resume=True: the data start from their beginning.')
        else:
            data = point['data'] if point else None
            self.dataloader_iterator.resume(data or self.dataloader_iterator.place(self._iter))
            print_log(f'Continuing after {self._iter} iterations of data.', logger='current')
        if point is None:
            return
        restore(self.runner, point)
        if not point['validated']:
            self._validate_if_due()

    def _validate_if_due(self) -> None:
        self._decide_current_val_interval()
        due = self._iter % self.val_interval == 0 or self._iter == self._max_iters
        if self.runner.val_loop is not None and self._iter >= self.val_begin and due:
            self.runner.val_loop.run()
