"""The plan: taps, pairs, adapters and trained parameters, from one probe of each network."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from logging import WARNING
from typing import Any

from mmengine.logging import print_log
from torch import nn

from mmkd.levels import Level
from mmkd.names import did_you_mean, find_name
from mmkd.objective import Objective, PairObjective
from mmkd.own_optimizers import own_optimizer
from mmkd.pixels import Pixels
from mmkd.plan.alternatives import offered
from mmkd.plan.first_step import equals_itself, first_step_differs, is_one_place
from mmkd.plan.freezing import describe_trains, freeze
from mmkd.plan.image_scale import tell_scale
from mmkd.plan.parts import describe_teacher, millions, prepare_parts
from mmkd.plan.places import check_places
from mmkd.plan.probe import BODY, Found, Probes, Request
from mmkd.tap import Tap, Trace
from mmkd.teacher import Teacher
from mmkd.trains import PLAYERS, Trains
from mmkd.untouched import untouched_random_state


@dataclass
class Plan:
    """The plan of a distillation run; ``str(plan)`` is the output of ``mmkd plan``."""

    student: nn.Module
    teachers: dict[str, Teacher]
    objectives: dict[str, Objective]
    #: networks that learn beside the student
    peers: dict[str, nn.Module] = field(default_factory=dict)
    seen: dict[str, list[Level] | None] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    checked: set[str] = field(default_factory=set)
    #: refusals end with what suits the two networks
    advises: bool = True
    #: factors of the terms, bound to the objectives here; see mmkd.balance
    balance: Any = None
    probes: Probes = field(default_factory=Probes)
    trains: Trains = field(default_factory=lambda: Trains.of(PLAYERS))
    size: int = 256
    #: parameters of the student that nothing reaches without its own losses
    untaught: list[str] = field(default_factory=list)

    def prepare(self) -> Plan:
        """Bind every objective, probe both networks, create adapters.

        Raises:
            ValueError, TapError: unsuitable taps, models or options, before any data is read.
        """
        self._check_names()
        self.bind()
        found = self.probes(self.requests())
        for one in found:
            if one.reason:
                text = f'{type(one.model).__name__} could not be probed: {one.reason}'
                print_log(text, 'current', WARNING)
        self.set_up(found)
        self.size = found[0].size
        for name, teacher in self.teachers.items():
            prepare_parts(name, teacher, next(one.size for one in found if one.who == name))
        if self.balance is not None:
            self.balance.bind(self.objectives)
        self.probes.known.clear()  # which hold what the networks gave
        return self

    def _check_names(self) -> None:
        # A checkpoint has the state of the balance beside those of teachers.
        names = ['student', *self.peers, *self.teachers, *['balance'] * (self.balance is not None)]
        texts = [str(name).casefold() for name in names]
        for name in names:
            if texts.count(str(name).casefold()) > 1:
                raise ValueError(
                    f'two networks are called {name!r} among {", ".join(names)}. Objectives name '
                    'networks by learner and teacher_name, in any case of letters: give each peer '
                    'and teacher its own.'
                )

    def freeze(self, tasks: bool) -> None:
        """Take gradients from what does not train; see :func:`~mmkd.plan.freezing.freeze`."""
        networks, named = {'student': self.student, **self.peers}, self.objectives
        self.untaught = freeze(networks, named, self.trains, tasks, self.size)

    def bind(self) -> None:
        """Bind every objective to both networks, which chooses its taps; raises ValueError."""
        for name, objective in self.objectives.items():
            with _naming(name, self._roles(objective)):
                learner = self.learner(objective)
                with self._advising(objective):
                    judges = self.teacher_names(objective)
                    frozen = [judge in self.teachers for judge in judges]
                    tell_scale(objective, self.student, frozen)
                    for teacher in self.judges(objective) or [None]:
                        objective.bind(learner, teacher)
                    for judge in judges:
                        if judge in self.teachers:
                            self.teachers[judge].admit(objective)
                self._check_self(objective)

    def requests(self) -> list[Request]:
        """The networks to probe: the student, peers, then teachers, whose taps are set here."""
        requests = []
        for name in self.living:
            model = self.network(name)
            requests.append(Request(name, model, _watched(model, self.taps_of(name)), trains=True))
            if name in self.peers:
                Pixels.of(model).check_source(Pixels.of(self.student), f"peer '{name}'")
        for name, teacher in self.teachers.items():
            taps = self.taps_of(name)
            teacher.set_taps(taps)
            if taps and not teacher.view:
                teacher.pixels.check_source(Pixels.of(self.student), f"teacher '{name}'")
            requests.append(Request(name, teacher.model, _watched(teacher.model, taps)))
        return requests

    def set_up(self, found: Sequence[Found]) -> None:
        """Show every objective the shapes at its taps; raises ValueError, TapError."""
        by_name = dict(zip((*self.living, *self.teachers), found, strict=True))
        for name, objective in self.objectives.items():
            self._set_up(name, objective, by_name)

    def _advising(self, objective: Objective) -> AbstractContextManager:
        """Add methods and options that suit the two networks to a refusal."""
        if not self.advises:
            return contextlib.nullcontext()
        learner = self.learner(objective)
        name = self.teacher_name(objective) or next(iter(self.teachers), None)
        frozen = {name: copy.copy(self.teachers[name])} if name in self.teachers else {}
        teacher = None if name is None else self.network(name)
        peers = {} if frozen or teacher is None or teacher is learner else {'other': teacher}

        def trial(other: Objective) -> None:
            if not frozen and teacher is not None:
                other.teacher_names = tuple(peers) or ('student',)
            named = {'it': other}
            plan = Plan(learner, frozen, named, peers, advises=False, probes=self.probes)
            plan.bind()
            plan.set_up(self.probes(plan.requests()))

        return offered(type(objective), learner, teacher, trial)

    def _set_up(self, name: str, objective: Objective, found: Mapping[str, Found]) -> None:
        """Pass the shapes at its taps to an objective; errors include the shapes of the probe."""
        own, names = found[objective.learner], self.teacher_names(objective)
        judges = [found[judge] for judge in names]
        if judges:
            self._check_copies(name, own, *judges)
        if any(judge in self.teachers for judge in names):
            self._check_modes(name, own)
        taps = list(objective.student_taps), list(objective.teacher_taps)
        notes = own.explain(taps[0])
        self.notes[name] = notes + [note for judge in judges for note in judge.explain(taps[1])]
        said = [*self._roles(objective), *self.notes[name]]
        with _naming(name, said), untouched_random_state():
            shown = own.levels(taps[0]), *(judge.levels(taps[1]) for judge in judges)
            self.seen |= dict(zip(self._sides(name), shown, strict=True))
            levels = shown[0], shown[1] if judges else None
            self.seen.setdefault(f'{name}.teacher', None)
            objective.teacher_levels = dict(zip(names, shown[1:], strict=True))
            with self._advising(objective):
                check_places(objective, own, *judges)
                if isinstance(objective, PairObjective):
                    objective.check_widths(*levels)
                objective.setup(levels[0] or None, levels[1] or None)
            if objective.optimizer:
                own_optimizer(objective)  # complains now, not when training starts
            self.inherit(objective)

    def _sides(self, name: str) -> list[str]:
        """Keys of :attr:`seen` of an objective: of its learner, and of each teacher."""
        others = self.teacher_names(self.objectives[name])[1:]
        first = ['teacher'] if self.teacher_names(self.objectives[name]) else []
        return [f'{name}.{side}' for side in ('student', *first, *others)]

    def inherit(self, objective: Objective) -> None:
        """Let an objective copy weights of its (first) teacher to its learner."""
        objective.inherit(self.learner(objective), self.judge(objective))

    def check_step(self, name: str, trace: Trace) -> None:
        """Compare the first step of an objective with the plan.

        Raises:
            ValueError: see :func:`~mmkd.plan.first_step.first_step_differs`.
        """
        if name in self.checked:
            return
        self.checked.add(name)
        seen = [self.seen.get(side) for side in self._sides(name)]
        planned = self.objectives[name].checks_shapes
        if planned and (text := first_step_differs(self.objectives[name], trace, seen)):
            raise ValueError(' '.join([f"objective '{name}': {text}", *self.notes[name]]))
        if self._hears_itself(self.objectives[name]) and is_one_place(self.objectives[name], trace):
            raise ValueError(f"objective '{name}': {equals_itself(self.objectives[name])}")

    def _check_copies(self, name: str, *networks: Found | None) -> None:
        """Refuse networks that make several maps of each image."""
        for one in networks:
            if one is not None and (count := one.copies()) != 1:
                raise ValueError(
                    f"objective '{name}': the backbone of {type(one.model).__name__} gives "
                    f'{count:g} maps of each image, one per branch, so student and teacher cannot '
                    'be compared image by image. As a teacher a TridentNet may be used with '
                    'test_branch_idx=1.'
                )

    def _check_modes(self, name: str, student: Found) -> None:
        """Refuse taps on the backbone or neck whose maps differ in training."""
        objective = self.objectives[name]
        for tap in objective.student_taps:
            if tap.path.split('.')[0] not in BODY or not (text := student.differs(tap)):
                continue
            meant = student.of_evaluation(tap)
            taps = [str(tap) for tap in objective.teacher_taps]
            sure = meant and len(taps) == 1
            advice = f"student='{meant}', teacher='{taps[0]}'" if sure else 'each map by its index'
            raise ValueError(
                f"objective '{name}': {text} A teacher runs in evaluation mode, so name the "
                f'map that is meant: {advice}.'
            )

    # ------------------------------------------------------------------------------ who is who

    @property
    def living(self) -> list[str]:
        """Names of the networks that learn."""
        return ['student', *self.peers]

    def network(self, who: str) -> nn.Module:
        """The student, a peer or a teacher by its name."""
        if who in self.teachers:
            return self.teachers[who].model
        return self.student if who == 'student' else self.peers[who]

    def learner(self, objective: Objective) -> nn.Module:
        """The network that learns from an objective.

        Raises:
            ValueError: none of that name learns.
        """
        found = find_name(objective.learner, self.living)
        if found is None:
            hint = did_you_mean(objective.learner, self.living)
            raise ValueError(
                f'{type(objective).__name__} asks for learner={objective.learner!r}. Networks that '
                f'learn: {", ".join(self.living)}.{hint}'
            )
        objective.learner = found
        return self.network(found)

    def teacher_names(self, objective: Objective) -> list[str]:
        """Names of the networks that an objective listens to, in its order.

        Raises:
            ValueError: it needs one and there is none, or several and it names none.
        """
        if not objective.needs_teacher:
            return []
        asked: tuple[str | None, ...] = objective.teacher_names or (None,)
        return [self._teacher_name(objective, name) for name in asked]

    def _teacher_name(self, objective: Objective, name: str | None) -> str:
        if name is None and len(self.teachers) == 1:
            return next(iter(self.teachers))
        every = [*self.teachers, *self.living]
        found = find_name(name, every)
        if found is not None:
            return found
        known = ', '.join(self.teachers) or 'none; add teacher=dict(config=…, checkpoint=…)'
        others = f' Peers: {", ".join(self.peers)}.' if self.peers else ''
        asked = 'names no teacher_name' if name is None else f'asks for teacher_name={name!r}'
        hint = did_you_mean(name, every)
        raise ValueError(f'{type(objective).__name__} {asked}. Teachers: {known}.{others}{hint}')

    def teacher_name(self, objective: Objective) -> str | None:
        """The only or first of :meth:`teacher_names`."""
        return next(iter(self.teacher_names(objective)), None)

    def teacher_of(self, objective: Objective) -> Teacher | None:
        """The first of its teachers, unless that is a network that learns."""
        return self.teachers.get(self.teacher_name(objective) or '')

    def judges(self, objective: Objective) -> list[nn.Module]:
        """The networks that an objective listens to, in its order."""
        return [self.network(name) for name in self.teacher_names(objective)]

    def judge(self, objective: Objective) -> nn.Module | None:
        """The only or first of :meth:`judges`."""
        return next(iter(self.judges(objective)), None)

    def taps_of(self, who: str, names: Iterable[str] | None = None) -> list[Tap]:
        """Every place of one network at which an objective (of ``names``) or the balance looks."""
        shared = self.balance.taps if self.balance is not None and who == 'student' else ()
        return [*self._objectives_taps(who, self.objectives if names is None else names), *shared]

    def _objectives_taps(self, who: str, names: Iterable[str]) -> list[Tap]:
        return [
            tap
            for objective in map(self.objectives.__getitem__, names)
            for listens, taps in (
                (objective.learner == who, objective.student_taps),
                (who in self.teacher_names(objective), objective.teacher_taps),
            )
            if listens
            for tap in taps
        ]

    def _check_self(self, objective: Objective) -> None:
        same = objective.student_taps and objective.student_taps == objective.teacher_taps
        if same and self._hears_itself(objective):
            raise ValueError(equals_itself(objective))

    def _hears_itself(self, objective: Objective) -> bool:
        return set(self.teacher_names(objective)) == {objective.learner}

    def _roles(self, objective: Objective) -> list[str]:
        """Whom messages of methods call student and teacher, where the learner is a peer."""
        if objective.learner not in self.peers:
            return []
        judge = ''.join(f", the teacher '{name}'" for name in objective.teacher_names[:1])
        return [f"(The student is here the peer '{objective.learner}'{judge}.)"]

    def called(self, objective: Objective) -> list[str]:
        """What its learner and its teachers are called where their taps are listed."""
        names = self.teacher_names(objective)
        one = len(names) == 1
        return [
            objective.learner,
            *('teacher' if n in self.teachers and one else f'{n}, as teacher' for n in names),
        ]

    def __str__(self) -> str:
        lines = [f'student: {type(self.student).__name__}, {millions(self.student)}']
        lines += [f'edit {x.name}: {x.line}' for x in getattr(self.student, 'edits_made', ())]
        lines += describe_trains(self.trains, self.untaught)
        for name, peer in self.peers.items():
            lines.append(f'peer {name}: {type(peer).__name__}, {millions(peer)}, learns too')
        for name, teacher in self.teachers.items():
            lines += describe_teacher(name, teacher)
        for name, objective in self.objectives.items():
            lines += self._describe(name, objective)
        if self.balance is not None:
            first, *more = self.balance.describe()
            lines += [f'balance: {first}', *(f'  {line}' for line in more)]
        return '\n'.join(lines)

    def _describe(self, name: str, objective: Objective) -> list[str]:
        lines = [f'objective {name}: {type(objective).__name__}, weight {objective.weight}']
        lines += [f'  {option} {schedule}' for option, schedule in objective.schedules.items()]
        for who, side in zip(self.called(objective), self._sides(name), strict=True):
            taps = objective.teacher_taps if side != f'{name}.student' else objective.student_taps
            levels = self.seen.get(side)
            shapes = ', '.join(map(str, levels)) if levels else 'not probed'
            if taps:
                lines.append(f'  {who} {", ".join(map(str, taps))}: {shapes}')
        lines += [f'  {line}' for line in [*self.notes.get(name, []), *objective.describe()]]
        count = sum(p.numel() for p in objective.parameters())
        how = ', with an optimiser of its own: ' + _options(objective.optimizer)
        return [
            *lines,
            f'  trains {count:,} parameters of its own{how * bool(objective.optimizer)}',
        ]


def _watched(model: nn.Module, taps: list[Tap]) -> list[Tap]:
    """The taps of a network, and its backbone, where there is any."""
    return [*taps, Tap.parse('backbone')] if taps and hasattr(model, 'backbone') else taps


@contextlib.contextmanager
def _naming(name: str, notes: Iterable[str] = ()) -> Iterator[None]:
    """Add the objective's name before its error, and notes of the probe behind it."""
    try:
        yield
    except (ValueError, TypeError) as error:
        text = ' '.join([f"objective '{name}': {error}", *notes])
        raise type(error)(text) from None


def _options(config: Mapping[str, Any] | None) -> str:
    rest = dict(config or {})
    return f'{rest.pop("type", "")} ' + ', '.join(f'{key} {value}' for key, value in rest.items())
