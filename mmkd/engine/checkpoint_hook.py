"""mmengine's CheckpointHook; outdated files are deleted only after the new one is complete."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio.backends import LocalBackend
from mmengine.hooks import CheckpointHook as MMCheckpointHook

from mmkd.borrowed import unwrapped
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

    def flush(self, keep: list, folder: str) -> None:
        """Delete outdated files, unless a new file has the name or they belong to another run."""
        for path in self.stale:
            if path not in keep and _is_own_file(path, folder, self._backend):
                self._backend.remove(path)


def _is_own_file(path: str, folder: str, backend: Any) -> bool:
    """Whether it is a file that this run may delete: no folder, no link, nothing outside."""
    if not isinstance(backend, LocalBackend):
        return backend.isfile(path)
    inside = Path(os.path.realpath(folder)) in Path(os.path.realpath(path)).parents
    return inside and os.path.isfile(path) and not os.path.islink(path)


def _is_score(value: Any) -> bool:
    return isinstance(value, Real) and not math.isnan(value)


@HOOKS.register_module()
class CheckpointHook(MMCheckpointHook):
    """Deletes outdated checkpoints after the new one is on disk; stock deletes them before.

    ``last_checkpoint`` is replaced at once, and the random states of all ranks go into the
    checkpoint. Arguments are those of :class:`mmengine.hooks.CheckpointHook`.
    """

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Leave state for resuming out of the best checkpoint, from which no run is resumed."""
        if 'optimizer' in checkpoint:
            return
        model = unwrapped(runner.model)
        for name, objective in dict(getattr(model, 'objectives', {})).items():
            for buffer in objective.resume_only:
                checkpoint['state_dict'].pop(f'objectives.{name}.{buffer}', None)

    def before_train(self, runner: Any) -> None:
        """Find the folder and the run's own files, and remove half-written files of a killed run.

        Paths in a resumed checkpoint are not trusted: its best checkpoint is the file
        of that name in this run's folder, and nothing if there is none.
        """
        info = runner.message_hub.runtime_info
        keys = [k for k in info if k == 'keep_ckpt_ids' or k.startswith('best_ckpt')]
        keys += [k for k in info if k.startswith('best_score') and not _is_score(info[k])]
        told = {key: info.pop(key) for key in keys}
        super().before_train(runner)
        self._adopt_last(info.get('last_ckpt'))
        self._adopt_best(runner, told)
        if self.max_keep_ckpts > 0 and 'keep_ckpt_ids' in told:
            self._adopt_kept(runner, told['keep_ckpt_ids'])
        if not is_main_process():
            return
        for folder in {runner.work_dir, str(self.out_dir)}:
            for part in Path(folder).glob('*.part'):
                ours = re.fullmatch(r'.+\.\d+\.part', part.name)  # as atomic_file names them
                if ours and part.is_file() and not part.is_symlink():
                    runner.logger.info(f'Removing {part}, left behind by an interrupted run.')
                    part.unlink(missing_ok=True)

    def _adopt_last(self, path: Any) -> None:
        """The last checkpoint, which a better validation rewrites, may be of the time before."""
        own = self.file_backend.join_path(self.out_dir, os.path.basename(str(path or '')))
        if path and self._owns(own):
            self.last_ckpt = own

    def _adopt_best(self, runner: Any, told: dict) -> None:
        """Go on with the best checkpoints that lie in this run's folder."""
        for key, path in told.items():
            metric = key.removeprefix('best_ckpt').removeprefix('_')
            if not key.startswith('best_ckpt') or not self.save_best:
                continue
            name = os.path.basename(path) if isinstance(path, str) else ''
            own = self.file_backend.join_path(self.out_dir, name)
            if not self._is_best_name(name) or not self._owns(own):
                runner.logger.info(
                    f'The best checkpoint so far, {str(path)[:200]}, is no file of this run and is '
                    'left alone.'
                )
                continue
            if not metric and hasattr(self, 'best_ckpt_path'):
                self.best_ckpt_path = own
            elif metric in getattr(self, 'best_ckpt_path_dict', ()):
                self.best_ckpt_path_dict[metric] = own
            runner.message_hub.update_info(key, own)

    def _owns(self, path: str) -> bool:
        return _is_own_file(path, self.out_dir, self.file_backend)

    def _is_best_name(self, name: str) -> bool:
        start, end = (
            re.escape(part) for part in re.split(r'\{.*\}', self.filename_tmpl, maxsplit=1)
        )
        return re.fullmatch(rf'best_.+_{start}\d+{end}', name) is not None

    def _adopt_kept(self, runner: Any, told: Any) -> None:
        """Count the checkpoints that are there already; the oldest above the limit are deleted."""
        told = told if isinstance(told, list) else []
        steps = [step for step in told if type(step) is int and step >= 0]
        self.keep_ckpt_ids.extend(steps)  # which holds as many as are kept
        for step in steps[: -self.max_keep_ckpts]:
            path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(step))
            if is_main_process() and self._owns(path):
                self.file_backend.remove(path)
        runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))

    def after_train(self, runner: Any) -> None:
        """Publish the checkpoints, if asked to; of a metric without a best one there is none."""
        paths = getattr(self, 'best_ckpt_path_dict', {})
        if paths:
            self.best_ckpt_path_dict = {k: path for k, path in paths.items() if path}
        super().after_train(runner)
        if paths:
            self.best_ckpt_path_dict = paths

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict) -> None:
        with self._deleting_last():
            self._forget_oldest(runner, step)
            name = self.filename_tmpl.format(step)
            self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
            runner.message_hub.update_info('last_ckpt', self.last_ckpt)
            runner.call_hook('gather_random_state')
            runner.call_hook('gather_state')
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
            runner.call_hook('after_save')

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
        keep = [self.last_ckpt, getattr(self, 'best_ckpt_path', None), *best]
        postponed.flush(keep, self.out_dir)
