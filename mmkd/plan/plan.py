"""The plan: taps, pairs, adapters and trained parameters, from one probe of each network."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from logging import WARNING
from typing import Any

from mmengine.logging import print_log
from torch import nn

from mmkd.levels import Level
from mmkd.names import did_you_mean, find_name
from mmkd.objective import Objective, PairObjective, own_optimizer
from mmkd.pixels import Pixels
from mmkd.plan.alternatives import offered
from mmkd.plan.first_step import first_step_differs
from mmkd.plan.places import check_places
from mmkd.plan.probe import BODY, Found, Probes, Request
from mmkd.plan.teacher_options import apply_options
from mmkd.scales import teacher_scale
from mmkd.tap import Tap, Trace
from mmkd.teacher import Teacher
from mmkd.untouched import untouched_random_state


@dataclass
class Plan:
    """The plan of a distillation run; ``str(plan)`` is the output of tools/plan.py."""

    student: nn.Module
    teachers: dict[str, Teacher]
    objectives: dict[str, Objective]
    seen: dict[str, list[Level] | None] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    checked: set[str] = field(default_factory=set)
    #: refusals end with what suits the two networks
    advises: bool = True
    probes: Probes = field(default_factory=Probes)

    def prepare(self) -> Plan:
        """Bind every objective, probe both networks, create adapters.

        Raises:
            ValueError, TapError: unsuitable taps, models or options, before any data is read.
        """
        self.bind()
        found = self.probes(self.requests())
        for one in found:
            if one.reason:
                text = f'{type(one.model).__name__} could not be probed: {one.reason}'
                print_log(text, 'current', WARNING)
        self.set_up(found)
        for one, teacher in zip(found[1:], self.teachers.values(), strict=True):
            taps, size = self.teacher_taps(one.who), one.size
            show = partial(_probe_again, one.who, taps, size)
            apply_options(one.who, teacher, show)
        self.probes.known.clear()  # which hold what the networks gave
        return self

    def bind(self) -> None:
        """Bind every objective to both networks, which chooses its taps; raises ValueError."""
        for name, objective in self.objectives.items():
            with _naming(name):
                teacher = self.teacher_of(objective)
                self._check_scale(objective, teacher)
                with self._advising(objective):
                    objective.bind(self.student, teacher.model if teacher else None)

    def requests(self) -> list[Request]:
        """The networks to probe: the student, then each teacher, whose taps are set here."""
        requests = [Request('student', self.student, _watched(self.student, self.student_taps()))]
        requests[0].trains = True
        for name, teacher in self.teachers.items():
            taps = self.teacher_taps(name)
            teacher.set_taps(taps)
            if taps:
                teacher.pixels.check_source(Pixels.of(self.student), f"teacher '{name}'")
            requests.append(Request(name, teacher.model, _watched(teacher.model, taps)))
        return requests

    def set_up(self, found: Sequence[Found]) -> None:
        """Show every objective the shapes at its taps; raises ValueError, TapError."""
        student, *teachers = found
        by_name = {one.who: one for one in teachers}
        for name, objective in self.objectives.items():
            self._set_up(name, objective, student, by_name.get(self.teacher_name(objective) or ''))

    def _advising(self, objective: Objective) -> AbstractContextManager:
        """Add methods and options that suit the two networks to a refusal."""
        if not self.advises:
            return contextlib.nullcontext()
        name = self.teacher_name(objective) or next(iter(self.teachers), None)

        def trial(other: Objective) -> None:
            teachers = {} if name is None else {name: copy.copy(self.teachers[name])}
            plan = Plan(self.student, teachers, {'it': other}, advises=False, probes=self.probes)
            plan.bind()
            plan.set_up(self.probes(plan.requests()))

        teacher = None if name is None else self.teachers[name].model
        return offered(type(objective), self.student, teacher, trial)

    def _set_up(
        self, name: str, objective: Objective, student: Found, teacher: Found | None
    ) -> None:
        """Pass the shapes at its taps to an objective; errors include the shapes of the probe."""
        if teacher is not None:
            self._check_copies(name, student, teacher)
            self._check_modes(name, student)
        taps = list(objective.student_taps), list(objective.teacher_taps)
        notes = student.explain(taps[0]) + (teacher.explain(taps[1]) if teacher else [])
        self.notes[name] = notes
        with _naming(name, notes), untouched_random_state():
            levels = student.levels(taps[0]), teacher.levels(taps[1]) if teacher else None
            self.seen[f'{name}.student'], self.seen[f'{name}.teacher'] = levels
            with self._advising(objective):
                check_places(objective, student, teacher)
                if isinstance(objective, PairObjective):
                    objective.check_widths(*levels)
                objective.setup(levels[0] or None, levels[1] or None)
            if objective.optimizer:
                own_optimizer(objective)  # complains now, not when training starts
            source = self.teacher_of(objective)
            objective.inherit(self.student, source.model if source else None)

    def check_step(self, name: str, trace: Trace) -> None:
        """Compare the first step of an objective with the plan.

        Raises:
            ValueError: see :func:`~mmkd.plan.first_step.first_step_differs`.
        """
        if name in self.checked:
            return
        self.checked.add(name)
        seen = [self.seen.get(f'{name}.{who}') for who in ('student', 'teacher')]
        if text := first_step_differs(self.objectives[name], trace, seen):
            raise ValueError(' '.join([f"objective '{name}': {text}", *self.notes[name]]))

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
            other = ', '.join(map(str, objective.teacher_taps))
            advice = f"student='{meant}', teacher='{other}'" if meant else 'each map by its index'
            raise ValueError(
                f"objective '{name}': {text} A teacher runs in evaluation mode, so name the "
                f'map that is meant: {advice}.'
            )

    def _check_scale(self, objective: Objective, teacher: Teacher | None) -> None:
        if teacher and teacher_scale(self.student) > 1 and not objective.over_scales:
            raise ValueError(
                f'{type(objective).__name__} compares networks that see the same images, but '
                "HalfScale in the student's data_preprocessor halves the student's. Mimic compares "
                'over scales.'
            )

    def teacher_name(self, objective: Objective) -> str | None:
        """Name of the teacher of an objective.

        Raises:
            ValueError: it needs one and there is none, or several and it names none.
        """
        if not objective.needs_teacher:
            return None
        name = objective.teacher_name
        if name is None and len(self.teachers) == 1:
            return next(iter(self.teachers))
        found = find_name(name, self.teachers)
        if found in self.teachers:
            return found
        known = ', '.join(self.teachers) or 'none; add teacher=dict(config=…, checkpoint=…)'
        asked = 'names no teacher_name' if name is None else f'asks for teacher_name={name!r}'
        hint = did_you_mean(name, self.teachers)
        raise ValueError(f'{type(objective).__name__} {asked}. Teachers: {known}.{hint}')

    def teacher_of(self, objective: Objective) -> Teacher | None:
        name = self.teacher_name(objective)
        return None if name is None else self.teachers[name]

    def student_taps(self, names: Iterable[str] | None = None) -> list[Tap]:
        chosen = self.objectives if names is None else names
        return [tap for name in chosen for tap in self.objectives[name].student_taps]

    def teacher_taps(self, teacher: str) -> list[Tap]:
        return [
            tap
            for objective in self.objectives.values()
            if self.teacher_name(objective) == teacher
            for tap in objective.teacher_taps
        ]

    def __str__(self) -> str:
        lines = [f'student: {type(self.student).__name__}, {_millions(self.student)}']
        for name, teacher in self.teachers.items():
            lines.append(
                f'teacher {name}: {type(teacher.model).__name__}, {_millions(teacher.model)}, '
                f'{teacher.loaded}'
            )
            lines.append(f'  runs {teacher.route}; input {teacher.pixels}')
            lines += [f'  fast: {note}' for note in teacher.notes]
            lines += [f'  {note}' for note in (teacher.compile_note, teacher.stream_note) if note]
        for name, objective in self.objectives.items():
            lines += self._describe(name, objective)
        return '\n'.join(lines)

    def _describe(self, name: str, objective: Objective) -> list[str]:
        lines = [f'objective {name}: {type(objective).__name__}, weight {objective.weight}']
        lines += [f'  {option} {schedule}' for option, schedule in objective.schedules.items()]
        for side, taps in (
            ('student', objective.student_taps),
            ('teacher', objective.teacher_taps),
        ):
            levels = self.seen.get(f'{name}.{side}')
            shapes = ', '.join(map(str, levels)) if levels else 'not probed'
            if taps:
                lines.append(f'  {side} {", ".join(map(str, taps))}: {shapes}')
        lines += [f'  {line}' for line in [*self.notes.get(name, []), *objective.describe()]]
        count = sum(p.numel() for p in objective.parameters())
        how = ', with an optimiser of its own: ' + _options(objective.optimizer)
        return [
            *lines,
            f'  trains {count:,} parameters of its own{how * bool(objective.optimizer)}',
        ]


def _probe_again(who: str, taps: list[Tap], size: int, model: nn.Module) -> Found:
    return Request(who, model, taps).run(size)


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


def _millions(model: nn.Module) -> str:
    return f'{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters'
