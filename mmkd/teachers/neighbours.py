"""Neighbours: in one launch, groups of processes train a student each and teach each other."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from logging import WARNING
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, EarlyStoppingHook
from mmengine.logging import print_log
from torch import nn

from mmkd.groups import GROUP, WAIT, Groups, alone, current, group_index
from mmkd.options import check_number
from mmkd.schedule import Progress
from mmkd.teacher import Teacher
from mmkd.teachers.copies import copy_of, load, tensors
from mmkd.teachers.ensemble import Ensemble
from mmkd.teachers.kinds import is_teacher, kind, kind_of
from mmkd.teachers.shards import shard_in


class Neighbour(Teacher):
    """The student of another group as it was at the last exchange.

    Args:
        number (int): of the group.
    """

    of_student = True

    def __init__(self, number: int) -> None:
        self.number, self.here = number, False

    @property
    def loaded(self) -> str:
        return f'the student of group {self.number} as it was at the last exchange'

    @property
    def ready(self) -> bool:
        return self.here

    def meet(self, student: nn.Module) -> None:
        self.adopt(copy_of(student), f'group {self.number}')

    def state_dict(self) -> dict[str, Any]:
        return dict(weights=self.model.state_dict()) if self.here else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        load('Neighbours', self.model, state['weights'])
        self.here = True


@kind
class Neighbours(Ensemble):
    """The students of the other groups of this launch, as they were a few steps ago.

    Large Scale Distributed Neural Network Training through Online Distillation (Anil et al., ICLR
    2018): codistillation. The processes of ``torchrun`` are divided into groups, each of which is a
    distributed run of its own, with gradients averaged inside of it, a seed, a validation and
    checkpoints of its own under ``<work dir>/group_<k>``. Every ``every`` steps each group sends
    its weights and BatchNorm statistics to all others. With two groups the teacher is the other
    student; with more their mean, see :class:`Ensemble`. Before the first exchange, after ``every``
    steps, objectives that listen rest.

    Args:
        groups (int): N, 2 or more; the number of processes is a multiple of it.
        every (int): steps of the optimiser from one exchange to the next.
        wait (float): seconds for which a group waits for the others.
        mean (str): of three or more groups, ``'probability'``, ``'logit'`` or ``'feature'``.
        tau (float | None): temperature of the mean of probabilities, that of the objectives; None
            is 1.

    Raises:
        ValueError: fewer than two groups; every below 1; a run that is not started by a launcher;
            processes that cannot be divided evenly; groups of unequally many steps.
        TimeoutError: another group does not come to an exchange.
    """

    def __init__(
        self,
        groups: int,
        every: int = 50,
        wait: float = WAIT,
        mean: str = 'probability',
        tau: float | None = None,
    ) -> None:
        self.groups = check_number('Neighbours', 'groups', groups, 1, whole=True)
        if self.groups == 1:
            raise ValueError(
                'Neighbours: groups=1 has nobody to learn from. Take 2 or more, or train without a '
                'teacher.'
            )
        self.every = check_number('Neighbours', 'every', every, 1, whole=True)
        self.wait = check_number('Neighbours', 'wait', wait, 0)
        if mean == 'probability':
            tau = 1.0 if tau is None else tau
        own = group_index()
        numbers = [number for number in range(self.groups) if number != own]
        super().__init__({f'group{n}': Neighbour(n) for n in numbers}, mean, tau)
        self.student: nn.Module | None = None
        self.turn = 0

    @property
    def asks(self) -> bool:  # type: ignore[override]
        """Two groups: the other one's network is there to be asked."""
        return self.groups == 2

    @property
    def loaded(self) -> str:
        who = 'group' if self.groups == 2 else f'{self.groups - 1} groups'
        return f'the students of the other {who}, exchanged every {self.every} steps'

    def meet(self, student: nn.Module) -> None:
        self.student = student
        super().meet(student)

    # ----------------------------------------------------------------------------------- in a run

    def check(self, runner: Any) -> None:
        found = self._joined()
        _check_hooks(runner)
        iterations = found.tell('iterations', runner.max_iters, self.wait)
        if len(set(iterations)) > 1:
            raise ValueError(
                f'Neighbours: the groups have {", ".join(map(str, iterations))} iterations, but '
                'all have to come to every exchange. Their shards are of unequal size: change '
                'train_dataloader.drop_last, or count iterations, '
                'train_cfg=dict(by_epoch=False, max_iters=…).'
            )
        shard = shard_in(runner.cfg.get('train_dataloader'))
        if shard not in ((GROUP, None), (GROUP, self.groups)):
            print_log(
                'Neighbours: the groups train on the same data. Codistillation is of disjoint '
                f"parts: train_dataloader.dataset=dict(type='mmkd.Shard', index='{GROUP}', "
                'dataset=…).',
                'current',
                WARNING,
            )

    def _joined(self) -> Groups:
        found = current()
        if found is None or found.count != self.groups:
            raise alone(self.groups)
        return found

    def begin(self, student: nn.Module) -> None:
        own = hashlib.sha256()
        for parameter in student.parameters():
            own.update(parameter.detach().float().cpu().numpy().tobytes())
        if len(set(self._joined().tell('weights', own.hexdigest(), self.wait))) < self.groups:
            print_log(
                'Neighbours: groups start with the same weights, so they have little to learn '
                'from each other at first. Is it load_from, or an init_cfg for the whole student?',
                'current',
                WARNING,
            )

    def before_step(self, progress: Progress) -> None:
        super().before_step(progress)
        turn = progress.step // self.every
        if turn == self.turn:
            return
        self.turn = turn
        self._exchange(progress)

    @torch.no_grad()
    def _exchange(self, progress: Progress) -> None:
        assert self.student is not None
        own = [tensor for _, tensor in tensors(self.student)]
        found = self._joined().exchange(own, progress.iteration, self.wait)
        for member in self.members.values():
            assert isinstance(member, Neighbour)
            pairs = zip(tensors(member.model), found[member.number], strict=True)
            for (_, shown), value in pairs:
                shown.copy_(value)
            member.here = True

    def saved(self, progress: Progress) -> None:
        """An older file goes only when all groups have this one: they resume from one step."""
        self._joined().keep_up(progress.iteration, self.wait)

    def end(self, scores: Mapping[str, float], checkpoint: str) -> None:
        """Wait for the other groups, and tell how each of them ends."""
        found = self._joined()
        if is_main_process():
            found.announce(float('inf'))
        ends = found.tell('the end', [dict(scores), checkpoint], self.wait)
        found.leave(self.wait)
        self.beside = {f'group {number}': tuple(ends[number]) for number in found.others}

    def state_dict(self) -> dict[str, Any]:
        return dict(groups=self.groups, turn=self.turn, members=super().state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state.get('groups') != self.groups:
            raise ValueError(
                f'cannot resume: the checkpoint is of a run of {state.get("groups")} groups, this '
                f'one has {self.groups}. Resume with as many.'
            )
        self.turn = int(state['turn'])
        super().load_state_dict(state['members'])


def groups_of(model: Any) -> int:
    """Groups into which the run of a model, built or not, divides its processes; 0 for none.

    Raises:
        ValueError: several teachers that do, or one in an ensemble.
    """
    teachers = (
        getattr(model, 'teachers', {}) if isinstance(model, nn.Module) else model.get('teacher')
    )
    named = {'': teachers} if is_teacher(teachers) or isinstance(teachers, Teacher) else teachers
    found = [one for one in dict(named or {}).values() if _is_neighbours(one)]
    inner = sum(
        _is_neighbours(member) for one in dict(named or {}).values() for member in _members(one)
    )
    if len(found) + inner > 1 or inner:
        raise ValueError(
            'Neighbours is a teacher of its own: one of them in a run, and not a member of an '
            'Ensemble. Name it beside the others, teacher=dict(others=dict(type='
            "'mmkd.Neighbours', …), …), and let an objective listen to each."
        )
    if not found:
        return 0
    one = found[0]
    return one.groups if isinstance(one, Neighbours) else int(one.get('groups') or 0)


def _is_neighbours(entry: Any) -> bool:
    if isinstance(entry, Teacher):
        return isinstance(entry, Neighbours)
    return is_teacher(entry) and kind_of(entry) is Neighbours


def _members(entry: Any) -> list[Any]:
    members = entry.get('members') if isinstance(entry, Mapping) else getattr(entry, 'members', {})
    return list(members.values()) if isinstance(members, Mapping) else []


def _check_hooks(runner: Any) -> None:
    """Refuse what would end one group alone, or delete what the groups go on from together."""
    for hook in runner.hooks:
        if isinstance(hook, EarlyStoppingHook):
            raise ValueError(
                'Neighbours: EarlyStoppingHook would end one group while the others wait for it. '
                'Leave it out; default_hooks.checkpoint.save_best keeps the best epoch.'
            )
        if isinstance(hook, CheckpointHook) and 0 < hook.max_keep_ckpts < 2:
            raise ValueError(
                'Neighbours: a killed run goes on from the newest checkpoint that all groups have, '
                'so each keeps two or more; found max_keep_ckpts=1.'
            )
