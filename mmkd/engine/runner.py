"""The Runner that mmkd's tools use: safe files, exact resume, and CPUs as good as GPUs."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.fileio import get_file_backend
from mmengine.fileio.backends import LocalBackend
from mmengine.hooks import CheckpointHook as MMCheckpointHook
from mmengine.hooks import EarlyStoppingHook as MMEarlyStoppingHook
from mmengine.hooks import EMAHook
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper, revert_sync_batchnorm
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS, MODEL_WRAPPERS
from mmengine.runner import EpochBasedTrainLoop as MMEpochBasedTrainLoop
from mmengine.runner import IterBasedTrainLoop as MMIterBasedTrainLoop
from mmengine.runner import Runner as MMRunner
from mmengine.runner.base_loop import BaseLoop
from torch import nn

from mmkd.borrowed import unwrapped
from mmkd.checkpoint import (
    CheckpointError,
    atomic_file,
    check_start,
    check_starts,
    read_checkpoint,
)
from mmkd.checkpoint.checkpoint_error import first_line
from mmkd.checkpoint.fitting import load_weights, weights_for
from mmkd.checkpoint.newest import check_resumable, newest_checkpoint
from mmkd.checkpoint.partial import load_some
from mmkd.checks.data_guard import check_batches
from mmkd.checks.in_vain import check_settings
from mmkd.checks.on_device import check_operators
from mmkd.datasets.protection import building
from mmkd.engine.checkpoint_hook import CheckpointHook
from mmkd.engine.connecting import common_checkpoint, connect, join_groups, on_cpu
from mmkd.engine.console.noise import without_shell_errors
from mmkd.engine.console.screen import adopt
from mmkd.engine.early_stopping import EarlyStoppingHook
from mmkd.engine.edit_hook import EditHook, take_back, tell_baked
from mmkd.engine.finite_hook import FiniteHook
from mmkd.engine.loading import check_complete, check_optimiser_state, revised
from mmkd.engine.loops import EpochBasedTrainLoop, IterBasedTrainLoop
from mmkd.engine.occupied import occupied
from mmkd.engine.optimizers import (
    accumulated,
    build_optimizers,
    check_same_optimizers,
    schedules,
)
from mmkd.engine.random_state import RandomStateHook
from mmkd.engine.settings import report_changes, settings_of
from mmkd.engine.student_config import StudentConfigHook
from mmkd.engine.teacher_hook import TeacherHook
from mmkd.registry import RUNNERS, in_any_case
from mmkd.schedule import ACCUMULATION

# What stock configs ask for, and what they get.
STOCK_HOOKS: dict[Any, Any] = {
    MMCheckpointHook: CheckpointHook,
    MMEarlyStoppingHook: EarlyStoppingHook,
}
STOCK_LOOPS: dict[Any, Any] = {
    MMEpochBasedTrainLoop: EpochBasedTrainLoop,
    MMIterBasedTrainLoop: IterBasedTrainLoop,
}


@RUNNERS.register_module()
class Runner(MMRunner):
    """mmengine's Runner, with other behaviour on errors and on resuming.

    Checkpoints are written at once or not at all and read without running code in them.
    ``resume=True`` continues from the newest complete checkpoint with the numbers of the
    uninterrupted run. ``launcher='pytorch'`` works on CPUs, with gloo.

    Raises:
        FileNotFoundError, CheckpointError: ``load_from`` is missing or no usable checkpoint.
        ValueError: settings with which nothing would train.
        OperatorMissing: a detector's operators do not run on its device.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = inspect.signature(MMRunner.__init__).bind(self, *args, **kwargs).arguments
        self.groups = join_groups(given)
        given.pop('self')
        super().__init__(**given)
        check_settings(self._train_loop, self.optim_wrapper)
        check_operators(self.model)
        self._resume_from: str | None = None
        if self._resume:
            self._resume_from = self._load_from or self._find_newest()
            self._adopt_run()
        else:
            check_start('load_from', self._load_from)

    def train(self) -> nn.Module:
        """As mmengine's; warns if another run is training in the work dir.

        Raises:
            FileNotFoundError, CheckpointError: a file that an ``init_cfg`` names.
        """
        check_starts(unwrapped(self.model))
        if not is_main_process():
            return super().train()
        with occupied(self.work_dir):
            return super().train()

    # ------------------------------------------------------------------------------ environment

    def setup_env(self, env_cfg: dict) -> None:
        """As mmengine's; without a GPU processes are connected by gloo instead of nccl."""
        if self.distributed:
            connect(self.launcher, env_cfg)
        super().setup_env(env_cfg)

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """As mmengine's; a command keeps all but warnings and errors off its screen."""
        return adopt(super().build_logger(*args, **kwargs))

    def _log_env(self, env_cfg: dict) -> None:
        """As mmengine's; it asks a C compiler for its version, and there may be none."""
        with without_shell_errors():
            super()._log_env(env_cfg)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """As mmengine's; on CPUs DDP gets no device id, and SyncBN, for GPUs only, becomes BN."""
        if not self.distributed or not on_cpu() or is_model_wrapper(model):
            return super().wrap_model(model_wrapper_cfg, model)
        if any('SyncB' in type(module).__name__ for module in model.modules()):
            self.logger.info('SyncBN needs GPUs: plain BatchNorm takes its place on CPUs.')
            model = revert_sync_batchnorm(model)
        wrapper = model_wrapper_cfg
        if wrapper is None:
            unused = self.cfg.get('find_unused_parameters', False)
            wrapper = dict(broadcast_buffers=False, find_unused_parameters=unused)
        wrapper = dict(type='MMDistributedDataParallel') | dict(wrapper)
        return MODEL_WRAPPERS.build(wrapper, default_args=dict(module=model))

    # -------------------------------------------------------------------------- hooks and loops

    def register_hook(self, hook: Any, priority: Any = None) -> None:
        """Register a hook; a stock one in a config becomes mmkd's where there is one."""
        if isinstance(hook, dict):
            if isinstance(hook.get('type'), str):
                hook = dict(hook, type=in_any_case(HOOKS, hook['type']))
            hook = _replace_type(hook, STOCK_HOOKS)
        super().register_hook(hook, priority)

    def register_hooks(
        self, default_hooks: dict | None = None, custom_hooks: list | None = None
    ) -> None:
        """Register default and custom hooks, and mmkd's own."""
        super().register_hooks(default_hooks, custom_hooks)
        for kind in (RandomStateHook, StudentConfigHook, FiniteHook, TeacherHook, EditHook):
            if not any(isinstance(hook, kind) for hook in self.hooks):
                self.register_hook(kind())

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build a training loop; the two stock ones in a config become mmkd's."""
        if isinstance(loop, dict):
            loop = _replace_type(loop, STOCK_LOOPS)
            if 'type' not in loop and 'by_epoch' in loop:
                kind = EpochBasedTrainLoop if loop.pop('by_epoch') else IterBasedTrainLoop
                loop['type'] = kind
        return super().build_train_loop(loop)

    @staticmethod
    def build_dataloader(*args: Any, **kwargs: Any) -> Any:
        """As mmengine's; data that cannot be loaded are an error that names file and entry."""
        with building():
            return MMRunner.build_dataloader(*args, **kwargs)

    # ------------------------------------------------------------------------------- optimisers

    def build_optim_wrapper(self, optim_wrapper: Any) -> OptimWrapper:
        """As mmengine's; objectives with an optimiser of their own get it beside the student's."""
        if isinstance(optim_wrapper, OptimWrapper):
            return optim_wrapper
        build = functools.partial(super().build_optim_wrapper, optim_wrapper)
        return build_optimizers(self.model, build, optim_wrapper)

    def build_param_scheduler(self, scheduler: Any) -> Any:
        """As mmengine's: one list for all optimisers, or a mapping from their names to lists.

        Raises:
            ValueError: a mapping that leaves one out; data that make no batch, of which a schedule
                by epochs cannot be made.
        """
        if isinstance(self._train_loop, BaseLoop):
            by_epoch = isinstance(self._train_loop, MMEpochBasedTrainLoop)
            check_batches('train_dataloader', self._train_loop.dataloader, ends=by_epoch)
        return super().build_param_scheduler(schedules(self.optim_wrapper, scheduler))

    # ------------------------------------------------------------------------------ checkpoints

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """As mmengine's, but a file of this name is complete whenever it exists.

        Raises:
            OSError: the file cannot be written; an older one of this name is untouched.
        """
        backend_args = kwargs.get('backend_args')
        if not isinstance(get_file_backend(out_dir, backend_args=backend_args), LocalBackend):
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
        elif is_main_process():
            with atomic_file(os.path.join(out_dir, filename)) as part:
                name = os.path.relpath(part, out_dir)
                super().save_checkpoint(out_dir, name, *args, **kwargs)

    def load_checkpoint(
        self,
        filename: str,
        map_location: str | Callable = 'cpu',
        strict: bool = False,
        revise_keys: list = [],  # noqa: B006  mmengine's signature
    ) -> dict:
        """Load weights from a file or URL, without running code in it.

        Raises:
            FileNotFoundError: there is no such file.
            CheckpointError: it is no complete checkpoint, not safe to load, or holds NaN.
            ValueError: no weight fits, with ``strict`` not all; in a resumed run, any does not, or
                the optimisers of the checkpoint are others.
        """
        checkpoint = read_checkpoint(filename, map_location=map_location)
        model = unwrapped(self.model)
        if self._resume:
            check_resumable(filename, checkpoint)
            check_optimiser_state(checkpoint, filename, self.param_schedulers)
            if isinstance(self.optim_wrapper, OptimWrapper):
                check_same_optimizers(self.optim_wrapper, checkpoint['optimizer'])
        checkpoint = revised(checkpoint, revise_keys)
        checkpoint['state_dict'], prefix = weights_for(model, checkpoint, filename)
        if self._resume:
            take_back(model, checkpoint)
            check_complete(load_weights(model, checkpoint['state_dict'], prefix), filename)
        else:
            tell_baked(checkpoint, filename)
        averages = [] if self._resume else [h for h in self.hooks if isinstance(h, EMAHook)]
        for hook in self.hooks:
            if hook not in averages:
                hook.after_load_checkpoint(self, checkpoint=checkpoint)
        if self._resume:
            load_weights(model, checkpoint['state_dict'])  # hooks may have exchanged some
        else:
            load_some(model, checkpoint, filename, prefix=prefix, strict=strict)
        for hook in averages:  # they start from the whole model, whatever the file gave
            whole = dict(checkpoint, state_dict=model.state_dict())
            hook.after_load_checkpoint(self, checkpoint=whole)
        self._has_loaded = True
        return checkpoint

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """As mmengine's; a checkpoint of odd contents is an error of its own.

        Raises:
            CheckpointError: its record of the run is of another kind than training writes.
        """
        try:
            super().resume(filename, *args, **kwargs)
        except (AssertionError, AttributeError, IndexError, KeyError, TypeError) as error:
            raise CheckpointError(
                f'cannot resume from {filename}: its record of the run is not what training '
                f'writes ({type(error).__name__}: {first_line(error)}). Resume from another '
                'checkpoint, or train from its weights, with load_from and without --resume.'
            ) from error

    def load_or_resume(self) -> None:
        """Load or resume a checkpoint, once."""
        if self._has_loaded or not self._resume:
            super().load_or_resume()
        elif self._resume_from is not None:
            self.resume(self._resume_from)
        # Not before, because resuming replaces the contents of the hub.
        if isinstance(self.optim_wrapper, OptimWrapper):
            count = accumulated(self.optim_wrapper)
            self.message_hub.update_info(ACCUMULATION, count, resumed=False)

    def _find_newest(self) -> str | None:
        """Newest usable checkpoint of the work dir, the same for all ranks."""
        found = [newest_checkpoint(self.work_dir) if is_main_process() else (None, [])]
        broadcast_object_list(found)
        path, problems = found[0]
        if self.groups:
            path = common_checkpoint(self.groups, self.work_dir, path)
        for problem in problems:
            self.logger.warning(f'Not resuming from a file that is of no use: {problem}')
        if path is None:
            self.logger.warning(
                f'resume: there is no usable checkpoint in {self.work_dir}; '
                'training starts from the beginning.'
            )
        else:
            self.logger.info(f'Resuming from {path}.')
        return path

    def _adopt_run(self) -> None:
        """Report changed settings, and use the checkpoint's seed, with which samplers are built."""
        if self._resume_from is None:
            return
        checkpoint = read_checkpoint(self._resume_from, mmap=True)
        check_resumable(self._resume_from, checkpoint)
        check_optimiser_state(checkpoint, self._resume_from, self.param_schedulers)
        for line in report_changes(checkpoint['meta'].get('settings'), settings_of(self.cfg)):
            self.logger.warning(line)
        old, new = checkpoint['meta'].get('seed'), self._randomness_cfg.get('seed')
        if old is None or old == new:
            return
        if new is not None:
            self.logger.warning(f'seed={new} is ignored: the resumed run was started with {old}.')
        self._randomness_cfg.update(seed=old)
        self.set_randomness(**self._randomness_cfg)


def _replace_type(cfg: dict, table: dict[Any, Any]) -> dict:
    """Copy of a config whose stock type, given as a name or a class, is replaced."""
    for old, new in table.items():
        if cfg.get('type') in (old, old.__name__, f'mmengine.{old.__name__}'):
            return dict(cfg, type=new)
    return dict(cfg)
