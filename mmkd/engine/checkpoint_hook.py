"""mmengine's CheckpointHook, with no moment at which a crash leaves less than before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook as MMCheckpointHook

from mmkd.checkpoint import atomic_file
from mmkd.registry import HOOKS


class _Postponed:
    """A file backend whose deletions only take place when :meth:`flush` is called."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.stale: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self.stale.append(path)

    rmtree = remove

    def flush(self, keep: list) -> None:
        """Delete what was to be deleted, unless a new file took the name."""
        for path in self.stale:
            if path in keep:
                continue
            if self._backend.isfile(path):
                self._backend.remove(path)
            elif self._backend.isdir(path):
                self._backend.rmtree(path)


@HOOKS.register_module()
class CheckpointHook(MMCheckpointHook):
    """Deletes outdated checkpoints after the new one is on disk; stock deletes them before.

    ``last_checkpoint`` is replaced at once, and the random states of all ranks go into the
    checkpoint. Arguments are those of :class:`mmengine.hooks.CheckpointHook`.
    """

    def before_train(self, runner: Any) -> None:
        """Find the folder, and remove what a killed run has left half-written in it."""
        super().before_train(runner)
        if not is_main_process():
            return
        for folder in {runner.work_dir, str(self.out_dir)}:
            for part in Path(folder).glob('*.part'):
                runner.logger.info(f'Removing {part}, left behind by an interrupted run.')
                part.unlink(missing_ok=True)

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict) -> None:
        with self._deleting_last():
            self._forget_oldest(runner, step)
            name = self.filename_tmpl.format(step)
            self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
            runner.message_hub.update_info('last_ckpt', self.last_ckpt)
            runner.call_hook('gather_random_state')
            runner.save_checkpoint(
                self.out_dir,
                name,
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )
            if is_main_process():
                with atomic_file(os.path.join(runner.work_dir, 'last_checkpoint')) as part:
                    Path(part).write_text(self.last_ckpt)

    def _forget_oldest(self, runner: Any, step: int) -> None:
        # After a validation the checkpoint of the same step is written a second time.
        if self.max_keep_ckpts <= 0 or (self.keep_ckpt_ids and self.keep_ckpt_ids[-1] == step):
            return
        if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
            name = self.filename_tmpl.format(self.keep_ckpt_ids.popleft())
            if is_main_process():
                self.file_backend.remove(self.file_backend.join_path(self.out_dir, name))
        self.keep_ckpt_ids.append(step)
        runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))

    def _save_best_checkpoint(self, runner: Any, metrics: dict) -> None:
        with self._deleting_last():
            super()._save_best_checkpoint(runner, metrics)

    @contextmanager
    def _deleting_last(self) -> Iterator[None]:
        if isinstance(self.file_backend, _Postponed):  # inside _save_best_checkpoint
            yield
            return
        self.file_backend = postponed = _Postponed(self.file_backend)
        try:
            yield
        finally:
            self.file_backend = postponed._backend
        best = getattr(self, 'best_ckpt_path_dict', {}).values()
        postponed.flush([self.last_ckpt, getattr(self, 'best_ckpt_path', None), *best])
