"""Follower: the newest checkpoint of another run, which may follow this one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from logging import WARNING
from pathlib import Path
from typing import Any

from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from torch import nn

from mmkd.checkpoint import CheckpointError, read_checkpoint
from mmkd.checkpoint.newest import newest_checkpoint
from mmkd.options import check_number
from mmkd.schedule import Progress
from mmkd.teacher import Teacher, build_model, load_strictly
from mmkd.teachers.copies import copy_of
from mmkd.teachers.kinds import kind
from mmkd.teachers.shards import called, shard_in
from mmkd.waiting import of_main

#: seconds from one look at the other run's folder to the next
PAUSE = 0.2


@kind
class Follower(Teacher):
    """The student of another run as it was in that run's newest checkpoint.

    Large Scale Distributed Neural Network Training through Online Distillation (Anil et al., ICLR
    2018), with checkpoint files for the exchange, as theirs. Two runs that follow each other, on
    disjoint shards of the data (:func:`~mmkd.datasets.shard.Shard`), distil each other. Until the
    other run has written a file, objectives that listen rest. For several other runs put followers
    into an ``Ensemble``.

    Args:
        folder (str): work dir of the other run.
        every (int): steps from one look to the next.
        wait (float): seconds for which a run in lockstep waits for the other's file; without
            lockstep, after which it is reported once that there is none.
        lockstep (bool): at step k * ``every`` wait for the other run's checkpoint of that very
            step, so that the result does not depend on how fast the runs are. Both write one every
            ``every`` steps and keep two or more.
        config (str | dict | None): of the other student; None: as this one.
        cfg_options (dict | None): overrides of the config, as in ``--cfg-options``.

    Raises:
        ValueError: its own folder; every below 1; another network, other classes.
        TimeoutError: no file of the other run after ``wait`` seconds.
    """

    of_student = True

    def __init__(
        self,
        folder: str,
        every: int = 50,
        wait: float = 600,
        lockstep: bool = False,
        config: str | dict | None = None,
        cfg_options: dict | None = None,
    ) -> None:
        self.folder, self.lockstep = os.fspath(folder), lockstep
        self.every = check_number('Follower', 'every', every, 1, whole=True)
        self.wait = check_number('Follower', 'wait', wait, 0)
        self.own: nn.Module | None = None if config is None else build_model(config, cfg_options)
        if self.own is not None:
            self.adopt(self.own, self.folder)
        self.path: str | None = None
        self.looked = -1  # number of the last look
        self.since: float | None = None
        self.classes: tuple[str, ...] | None = None
        self.shard: Any = None
        self.told = False

    @property
    def loaded(self) -> str:
        how = 'the checkpoint of the same step' if self.lockstep else 'the newest checkpoint'
        return f'{how} in {self.folder}, looked at every {self.every} steps'

    @property
    def ready(self) -> bool:
        return self.path is not None

    def meet(self, student: nn.Module) -> None:
        if self.own is None:
            self.adopt(copy_of(student), self.folder)

    def check(self, runner: Any) -> None:
        if os.path.realpath(self.folder) == os.path.realpath(runner.work_dir):
            raise ValueError(
                f'Follower: {self.folder} is the work dir of this run itself, whose student would '
                'be its own teacher; name that of the other run, or take mmkd.Snapshot.'
            )
        metainfo = getattr(runner.train_dataloader.dataset, 'metainfo', None) or {}
        classes = metainfo.get('classes')
        self.classes = None if classes is None else tuple(classes)
        self.shard = shard_in(runner.cfg.get('train_dataloader'))
        if self.lockstep:
            _check_saving(runner, self.every)

    def before_step(self, progress: Progress) -> None:
        look = progress.iteration // self.every
        if look == self.looked:
            return
        self.looked = look
        path = self._find(look * self.every)
        if path is not None and path != self.path:
            self._take(path)

    def _find(self, step: int) -> str | None:
        """The file to show from now on, the same for all ranks."""
        return of_main(lambda: self._of_step(step) if self.lockstep else self._newest())

    def _newest(self) -> str | None:
        path, now = _newest_in(self.folder), time.monotonic()
        self.since = self.since or now
        if path is None and not self.told and now - self.since >= self.wait:
            self.told = True
            text = f'Follower: after {self.wait:g} seconds there is no checkpoint in {self.folder}.'
            print_log(f'{text} Objectives that listen to it rest.', 'current', WARNING)
        return path

    def _of_step(self, step: int) -> str | None:
        """Wait for the other run's file of a step; there is none of step 0."""
        start = time.monotonic()
        while step:
            for path in _files(self.folder, step):
                try:
                    if read_checkpoint(path, mmap=True)['meta']['iter'] == step:
                        return path
                except (CheckpointError, OSError, KeyError, TypeError):
                    continue  # deleted, or none of a run
            if time.monotonic() - start > self.wait:
                raise TimeoutError(
                    f'Follower: the run in {self.folder} has written no checkpoint of step {step} '
                    f'within {self.wait:g} seconds. Is it running, with a checkpoint every '
                    f'{self.every} steps? wait= waits longer; lockstep=False does not wait.'
                )
            time.sleep(PAUSE)
        return None

    def _take(self, path: str) -> None:
        if self.path is None:
            self._compare(read_checkpoint(path, mmap=True).get('meta') or {})
        self.loaded_keys = load_strictly(self.model, path)
        self.path = path

    def _compare(self, meta: Mapping[str, Any]) -> None:
        """What the other run trains on: the same classes, other images."""
        found = (meta.get('dataset_meta') or {}).get('classes')
        if found and self.classes and tuple(found) != self.classes:
            raise ValueError(
                f'Follower: the run in {self.folder} has the classes {", ".join(found[:4])}, …, '
                f'this one {", ".join(self.classes[:4])}, …. Let both have the same, in one order.'
            )
        other = shard_in((meta.get('settings') or {}).get('train_dataloader'))
        disjoint = self.shard and other and self.shard[1] == other[1] and self.shard[0] != other[0]
        if not disjoint:
            own, its = (called(shard) for shard in (self.shard, other))
            print_log(
                f'Follower: this run trains on {own} and the one in {self.folder} on {its}, which '
                'overlap. Codistillation is of disjoint parts: dict(type="mmkd.Shard", index=0, '
                'of=2, dataset=…) here, index=1 there.',
                'current',
                WARNING,
            )

    def state_dict(self) -> dict[str, Any]:
        return dict(path=self.path or '', looked=self.looked)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.looked = int(state['looked'])
        path = str(state['path'])
        if not path:
            return
        if os.path.isfile(path):
            self._take(path)
            return
        newest = _newest_in(self.folder)
        print_log(
            f'Follower: {path}, which this run had read, is gone, so it does not repeat the '
            f'numbers of the interrupted run. It goes on with {newest}.',
            'current',
            WARNING,
        )
        if newest is not None:
            self._take(newest)


def _newest_in(folder: str) -> str | None:
    return newest_checkpoint(folder)[0] if os.path.isdir(folder) else None


def _files(folder: str, step: int) -> Iterator[str]:
    """Files of a run that may be of a step: the one with its number, then those of epochs."""
    own = Path(folder, f'iter_{step}.pth')
    if own.is_file():
        yield str(own)
    yield from sorted(map(str, Path(folder).glob('epoch_*.pth')), key=lambda f: (-len(f), f))


def _check_saving(runner: Any, every: int) -> None:
    """In lockstep the other run waits for files of this one, else ValueError."""
    hook = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
    steps = 0
    if hook is not None and hook.interval > 0:
        steps = hook.interval * (len(runner.train_dataloader) if hook.by_epoch else 1)
    if not steps or every % steps:
        found = f'writes one every {steps} steps' if steps else 'writes none'
        raise ValueError(
            f'Follower: in lockstep the other run waits for a checkpoint of this one every {every} '
            f'steps, but this run {found}. Set every= to a multiple, or '
            f'default_hooks.checkpoint=dict(by_epoch=False, interval={every}).'
        )
    if 0 < hook.max_keep_ckpts < 2:
        raise ValueError(
            'Follower: in lockstep a run keeps two checkpoints or more, since the other may still '
            f'need the last but one; found max_keep_ckpts={hook.max_keep_ckpts}.'
        )
