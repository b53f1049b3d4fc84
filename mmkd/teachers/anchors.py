"""Anchors: the teacher's own past, checkpoint by checkpoint, from easy to hard."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from logging import WARNING
from math import floor, inf
from typing import Any

import torch
from mmengine.logging import print_log

from mmkd.checkpoint import read_checkpoint
from mmkd.config import default_work_dir, load_config
from mmkd.options import check_choice, check_list, check_number
from mmkd.schedule import Progress
from mmkd.teacher import Teacher, build_model, load_strictly
from mmkd.teachers.hardness import MEASURES, Hardness
from mmkd.teachers.kinds import kind
from mmkd.waiting import of_main

RULES = ('even', 'last_easy', 'first_hard')


def even_files(count: int, anchors: int) -> list[int]:
    """Positions, from 1, of K of E files at equal distances: ``floor(k E / K + 1/2)``."""
    return [floor(k * count / anchors + 0.5) for k in range(1, anchors + 1)]


def next_anchor(hardness: Sequence[float], eps: float, rule: str = 'last_easy') -> int:
    """How many anchors to go on, from the first of ``hardness``, the H of it and of all later ones.

    With ``h_j = (H_j - H_0) / H_0`` of the distances H from the student: ``'last_easy'`` is the
    last j of ``h_j <= eps``, or else the next; ``'first_hard'`` the first of ``h_j > eps``, or else
    the last. Where the student equals the anchor (H_0 = 0), h is 0 for another equal one, and else
    infinite.
    """
    first, *others = hardness
    if not others:
        return 0
    steps = [(h - first) / first if first else (inf if h else 0.0) for h in others]
    if rule == 'last_easy':
        return max((j for j, step in enumerate(steps, 1) if step <= eps), default=1)
    return next((j for j, step in enumerate(steps, 1) if step > eps), len(others))


@kind
class Anchors(Teacher):
    """A teacher that starts as it was early in its own training and ends as it was at the end.

    Knowledge Distillation via Route Constrained Optimization (Jin et al., ICCV 2019). The student
    trains in one run, without a break; the weights of the teacher change in place.

    Args:
        config (str | dict): of the teacher.
        checkpoints (list[str] | None): its files, easy ones first; all of them are anchors.
        folder (str | None): instead, the folder of its run, of which K files at equal distances are
            taken; by default the work dir of ``config``.
        anchors (int | None): K for a folder; None is the length of ``at``, or 4.
        at (str | list[float]): fractions of the run at which the teacher changes, from 0.0;
            ``'even'``: ``(k - 1) / K``.
        rule (str): ``'even'``: anchor k at time k; ``'last_easy'`` and ``'first_hard'``: at each of
            the times the next is chosen by how far the student is, see :func:`next_anchor`.
        eps (float): threshold of that choice.
        measure (str): how far: ``'kl'`` of class scores at temperature 1, or ``'feature'``, the
            relative squared distance at the objectives' taps, behind their adapters.
        images (int): of the training set, with the pipeline of the validation, for the choice.
        cfg_options (dict | None): overrides of the config, as in ``--cfg-options``.

    Raises:
        ValueError: fewer than two files, or fewer than anchors; files of another network; times
            that do not start at 0 and increase; eps below 0.
    """

    def __init__(
        self,
        config: str | dict,
        checkpoints: Sequence[str] | None = None,
        folder: str | None = None,
        anchors: int | None = None,
        at: str | Sequence[float] = 'even',
        rule: str = 'even',
        eps: float = 0.5,
        measure: str = 'kl',
        images: int = 512,
        cfg_options: dict | None = None,
    ) -> None:
        self.rule = check_choice('Anchors', 'rule', rule, RULES)
        self.measure = check_choice('Anchors', 'measure', measure, MEASURES)
        self.eps = eps if eps == inf else check_number('Anchors', 'eps', eps, 0)
        self.images = check_number('Anchors', 'images', images, 1, whole=True)
        anchors = check_number('Anchors', 'anchors', anchors, 1, whole=True, optional=True)
        times = None if at == 'even' else check_list('Anchors', 'at', at)
        self.files = _chosen(config, checkpoints, folder, anchors, times)
        count = len(self.files)
        self.times = check_times(times or [k / count for k in range(count)], count)
        if self.greedy and self.measure == 'feature' and count > 1 and self.times[1] < 0.5 / count:
            raise ValueError(
                "Anchors: measure='feature' looks through the objectives' adapters, which have not "
                f'learnt anything at time {self.times[1]:g}. Let the second time be at least '
                f"{0.5 / count:g}, or take measure='kl'."
            )
        model = build_model(config, cfg_options)
        for file in reversed(self.files):  # all are read once, so that none fails in the run
            self.loaded_keys = load_strictly(model, file)
        self.adopt(model, self.files[0])
        self.index = self.shown = 0
        self.decided = 1
        self.hardness: Hardness | None = None

    @property
    def greedy(self) -> bool:
        return self.rule != 'even'

    @property
    def loaded(self) -> str:
        names = ', '.join(os.path.basename(file) for file in self.files)
        times = ', '.join(f'{time:.3g}' for time in self.times)
        how = f', {self.rule} at eps {self.eps:g}' * self.greedy
        folder = os.path.dirname(self.files[-1])
        return f'{self.loaded_keys} keys from {names} of {folder}, from {times} of the run{how}'

    # ----------------------------------------------------------------------------------- in a run

    def check(self, runner: Any) -> None:
        if self.greedy and len(self.files) > 1:
            self.hardness = Hardness(self, runner, self.measure, self.images)
            self.hardness.rehearse()

    def before_step(self, progress: Progress) -> None:
        stage = sum(time <= float(progress) for time in self.times)
        while self.greedy and self.decided < stage:
            self.decided += 1
            # By the main process, since statistics are each rank's own.
            self.index = of_main(partial(self._choose, progress))
        if not self.greedy:
            self.index = stage - 1
        if self.index != self.shown:
            self._show(self.index)

    def _choose(self, progress: Progress) -> int:
        """The next anchor, by the distances of this one and of all later ones."""
        if self.hardness is None:
            raise RuntimeError(
                'Anchors: the next anchor is chosen by a measurement that is set up when '
                'mmkd.Runner begins to train. Train with mmkd.Runner, or take rule="even".'
            )
        states = [self._weights(j) for j in range(self.index, len(self.files))]
        distances = self.hardness(states, progress)
        self._show(self.shown)
        found = self.index + next_anchor(distances, self.eps, self.rule)
        numbers = ', '.join(f'{h:.4g}' for h in distances)
        name = os.path.basename(self.files[found])
        print_log(f'Anchors: H {numbers} from anchor {self.index + 1} on: {name}', 'current')
        return found

    def _weights(self, index: int) -> dict[str, Any]:
        """A whole state from a file that was loaded at build; the model has it until it shows
        another."""
        load_strictly(self.model, self.files[index])
        return {key: value.clone() for key, value in self.model.state_dict().items()}

    @torch.no_grad()
    def _show(self, index: int) -> None:
        load_strictly(self.model, self.files[index])
        self.shown = index
        self.source = self.files[index]

    def state_dict(self) -> dict[str, Any]:
        return dict(index=self.index, decided=self.decided) if self.greedy else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        index, self.decided = int(state['index']), int(state['decided'])
        if not 0 <= index < len(self.files):
            raise ValueError(
                f'cannot resume: the run was at anchor {index + 1}, but there are '
                f'{len(self.files)}. Resume with the same files.'
            )
        self.index = index


def check_times(times: Sequence[Any], count: int) -> list[float]:
    """Fractions of the run, one for each anchor, from 0 and increasing, else ValueError."""
    found = [float(check_number('Anchors', 'at', time, 0, below=1)) for time in times]
    if len(found) != count or found[0] != 0 or found != sorted(set(found)):
        raise ValueError(
            f'Anchors: at={list(times)} must be {count} increasing fractions of the run, one for '
            'each anchor, of which the first is 0.'
        )
    return found


def _chosen(
    config: Any,
    checkpoints: Sequence[str] | None,
    folder: str | None,
    anchors: int | None,
    times: list | None,
) -> list[str]:
    """The files of the anchors, easy ones first."""
    if checkpoints is not None and (folder is not None or anchors is not None):
        raise ValueError(
            'Anchors takes checkpoints=[…], all of which are anchors, or a folder and how many '
            f'anchors to take of it, found both (folder={folder!r}, anchors={anchors!r}).'
        )
    if checkpoints is not None:
        files = _by_age(check_list('Anchors', 'checkpoints', checkpoints), warns=True)
        where, wanted = 'checkpoints', len(files)
    else:
        where = folder or _work_dir(config)
        files = _by_age(_files_of(where))
        wanted = anchors or (len(times) if times else 4)
    if len(files) < max(wanted, 2):
        names = ', '.join(os.path.basename(file) for file in files) or 'none'
        raise ValueError(
            f'Anchors needs at least {max(wanted, 2)} checkpoints of the teacher, found '
            f'{len(files)} in {where}: {names}. Train the teacher with '
            'default_hooks.checkpoint.max_keep_ckpts=-1, which keeps all.'
        )
    return [files[position - 1] for position in even_files(len(files), wanted)]


def _work_dir(config: Any) -> str:
    if not isinstance(config, (str, os.PathLike)):
        raise ValueError('Anchors: name the folder of the run, or checkpoints=[…].')
    path = os.fspath(config)
    return load_config(path).get('work_dir') or default_work_dir(path)


def _files_of(folder: str) -> list[str]:
    """Files of epochs, or where there are none of iterations."""
    for name in ('epoch', 'iter'):
        pattern = os.path.join(glob.escape(folder), f'{name}_*.pth')
        files = [f for f in glob.glob(pattern) if re.search(rf'{name}_\d+\.pth$', f)]
        if files:
            return files
    return []


def _by_age(files: list[str], warns: bool = False) -> list[str]:
    """Files in the order in which a run wrote them, as far as they say when."""
    ages = [_age(file) for file in files]
    if None in ages:
        return files
    order = sorted(range(len(files)), key=lambda i: ages[i] or (0, 0))
    if warns and order != sorted(order):
        names = ', '.join(os.path.basename(files[i]) for i in order)
        text = f'Anchors: checkpoints are taken in the order of their training: {names}.'
        print_log(text, 'current', WARNING)
    return [files[i] for i in order]


def _age(file: str) -> tuple[int, int] | None:
    meta = read_checkpoint(file, mmap=True).get('meta')
    meta = meta if isinstance(meta, Mapping) else {}
    epoch, iteration = meta.get('epoch'), meta.get('iter')
    return (iteration, epoch) if isinstance(epoch, int) and isinstance(iteration, int) else None
