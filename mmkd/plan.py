"""What is tapped, paired, adapted and trained, found by one probe forward of each network."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from logging import WARNING
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmkd.engine.optimizers import own_optimizer
from mmkd.families import family_of
from mmkd.levels import Level
from mmkd.objective import Objective
from mmkd.scales import teacher_scale
from mmkd.tap import Recorder, Side, Tap, TapError
from mmkd.teacher import Teacher, run_route, shortest_route
from mmkd.teacher_options import apply_options

PROBE_SIZE = 256


@contextlib.contextmanager
def untouched_random_state() -> Iterator[None]:
    """Leave python's, numpy's and torch's random streams as they were."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


@contextlib.contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Eval mode for a while; every module gets its own flag back."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag


@torch.no_grad()
def probe(model: nn.Module, taps: Iterable[Tap], size: int = PROBE_SIZE) -> Side:
    """Run a model once on one dummy image of ``size`` pixels square and record the taps."""
    taps = list(taps)
    parameter = next(model.parameters())
    # Not constant: normalisation layers and proposal heads meet ordinary numbers.
    line = torch.linspace(-2, 2, size, device=parameter.device)
    image = (line[:, None] * line.flip(0)[None]).expand(1, 3, size, size).contiguous()
    recorder = Recorder(model, taps)
    with untouched_random_state(), evaluation(model), recorder.record(image) as side:
        run_route(
            model, shortest_route(model, taps), image.to(parameter.dtype), dummy_samples(size)
        )
    return side


def dummy_samples(size: int) -> list[BaseDataElement]:
    """One sample with the meta information that heads ask for in ``mode='tensor'``."""
    try:
        from mmdet.structures import DetDataSample as Sample
    except ImportError:
        Sample = BaseDataElement
    shape = (size, size)
    meta = dict(
        img_shape=shape,
        ori_shape=shape,
        pad_shape=shape,
        batch_input_shape=shape,
        scale_factor=(1.0, 1.0),
        img_id=0,
    )
    return [Sample(metainfo=meta)]


def levels_at(side: Side, taps: Iterable[Tap]) -> list[Level] | None:
    """Shape and stride of every tensor at the taps, None if one of them was not reached.

    A method that only training calls, such as ``get_targets()``, is not waited for.
    """
    taps = [tap for tap in taps if side.raw(tap) or not tap.call]
    try:
        return [_level(t, side.inputs, tap) for tap in taps for t in side[tap]]
    except TapError:
        return None


def _level(tensor: Tensor, inputs: Tensor, tap: Tap) -> Level:
    shape = tuple(tensor.shape[1:])
    is_map = tensor.dim() == 4 and tensor.shape[0] == 1
    return Level(shape, round(inputs.shape[2] / shape[1]) if is_map else None, str(tap))


@dataclass
class Plan:
    """What a distillation run is going to do; ``str(plan)`` is what tools/plan.py prints."""

    student: nn.Module
    teachers: dict[str, Teacher]
    objectives: dict[str, Objective]
    seen: dict[str, list[Level] | None] = field(default_factory=dict)

    def prepare(self) -> Plan:
        """Bind every objective, probe both networks, create adapters.

        Raises:
            ValueError, TapError: whatever cannot work, before any data is read.
        """
        for name, objective in self.objectives.items():
            with _naming(name):
                teacher = self.teacher_of(objective)
                self._check_scale(objective, teacher)
                self._bind(objective, teacher.model if teacher else None)
        student_side = self._probe_student()
        teacher_sides = {name: self._probe_teacher(name) for name in self.teachers}
        for name, objective in self.objectives.items():
            s_levels = levels_at(student_side, objective.student_taps) if student_side else None
            side = teacher_sides.get(self.teacher_name(objective) or '')
            t_levels = levels_at(side, objective.teacher_taps) if side else None
            self.seen[f'{name}.student'], self.seen[f'{name}.teacher'] = s_levels, t_levels
            with _naming(name), untouched_random_state():
                objective.setup(s_levels or None, t_levels or None)
                if objective.optimizer:
                    own_optimizer(objective)  # complains now, not when training starts
                teacher = self.teacher_of(objective)
                objective.inherit(self.student, teacher.model if teacher else None)
        for name, teacher in self.teachers.items():
            self._apply_options(name, teacher)
        return self

    def _bind(self, objective: Objective, teacher: nn.Module | None) -> None:
        """Bind; where the method has no taps of its own for this student, say so."""
        named = bool(objective.student_taps)
        try:
            objective.bind(self.student, teacher)
        except ValueError as error:
            message = str(error)
            if named or 'tap' in message or family_of(self.student) not in objective.named_taps:
                raise
            example = 'neck[1]' if hasattr(self.student, 'neck') else 'backbone[1]'
            raise ValueError(
                f'{message.rstrip(".")}; or name taps, for instance student={example!r}.'
            ) from None

    def _check_scale(self, objective: Objective, teacher: Teacher | None) -> None:
        if teacher and teacher_scale(self.student) > 1 and not objective.over_scales:
            raise ValueError(
                f'{type(objective).__name__} compares networks that see the same images, but '
                "HalfScale in the student's data_preprocessor halves the student's. Mimic compares "
                'over scales.'
            )

    def teacher_name(self, objective: Objective) -> str | None:
        """Name of the teacher that an objective listens to.

        Raises:
            ValueError: it needs one and there is none, or several and it names none.
        """
        if not objective.needs_teacher:
            return None
        name = objective.teacher_name
        if name is None and len(self.teachers) == 1:
            return next(iter(self.teachers))
        if name in self.teachers:
            return name
        known = ', '.join(self.teachers) or 'none; add teacher=dict(config=…, checkpoint=…)'
        asked = 'names no teacher_name' if name is None else f'asks for teacher_name={name!r}'
        raise ValueError(f'{type(objective).__name__} {asked}. Teachers: {known}.')

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

    def _probe_student(self) -> Side | None:
        return self._try_probe(self.student, self.student_taps())

    def _probe_teacher(self, name: str) -> Side | None:
        taps = self.teacher_taps(name)
        teacher = self.teachers[name]
        teacher.listen(taps)
        return self._try_probe(teacher.model, taps)

    def _apply_options(self, name: str, teacher: Teacher) -> None:
        taps = self.teacher_taps(name)
        apply_options(name, teacher, lambda: self._try_probe(teacher.model, taps))

    @staticmethod
    def _try_probe(model: nn.Module, taps: list[Tap]) -> Side | None:
        """A head that cannot run on a dummy image is no reason to stop: widths may be typed."""
        if not taps:
            return None
        Recorder(model, taps)  # misspelt taps are, whatever happens in the forward
        try:
            return probe(model, taps)
        except TapError:
            raise
        except Exception as error:
            reason = f'{type(error).__name__}: {error}'
            print_log(f'{type(model).__name__} could not be probed: {reason}', 'current', WARNING)
            return None

    def __str__(self) -> str:
        lines = [f'student: {type(self.student).__name__}, {_millions(self.student)}']
        for name, teacher in self.teachers.items():
            source = 'RANDOM WEIGHTS' if teacher.source == 'random' else teacher.source
            lines.append(
                f'teacher {name}: {type(teacher.model).__name__}, {_millions(teacher.model)}, '
                f'{teacher.loaded_keys} keys from {source}'
            )
            lines.append(f'  runs {teacher.route}; sees {teacher.pixels}')
        for name, objective in self.objectives.items():
            lines += self._describe(name, objective)
        return '\n'.join(lines)

    def _describe(self, name: str, objective: Objective) -> list[str]:
        lines = [f'objective {name}: {type(objective).__name__}, weight {objective.weight}']
        for side, taps in (
            ('student', objective.student_taps),
            ('teacher', objective.teacher_taps),
        ):
            levels = self.seen.get(f'{name}.{side}')
            shapes = ', '.join(map(str, levels)) if levels else 'not probed'
            if taps:
                lines.append(f'  {side} {", ".join(map(str, taps))}: {shapes}')
        lines += [f'  {line}' for line in objective.describe()]
        count = sum(p.numel() for p in objective.parameters())
        how = ', with an optimiser of its own: ' + _options(objective.optimizer)
        return [
            *lines,
            f'  trains {count:,} parameters of its own{how * bool(objective.optimizer)}',
        ]


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Put the objective's name in front of what it complains about."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise type(error)(f"objective '{name}': {error}") from None


def _options(config: Mapping[str, Any] | None) -> str:
    rest = dict(config or {})
    return f'{rest.pop("type", "")} ' + ', '.join(f'{key} {value}' for key, value in rest.items())


def _millions(model: nn.Module) -> str:
    return f'{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters'


def candidates(model: nn.Module, depth: int = 2) -> list[tuple[str, list[Level]]]:
    """Taps down to ``depth`` dots that fire in a probe, with their shapes."""
    names = [n for n, _ in model.named_modules() if n and n.count('.') < depth]
    taps = [Tap.parse(n) for n in names if not n.startswith('data_preprocessor')]
    try:
        side = probe(model, taps)
    except Exception:
        taps = [tap for tap in taps if tap.path.split('.')[0] in ('backbone', 'neck')]
        side = probe(model, taps)
    found = ((str(tap), levels_at(side, [tap])) for tap in taps if side.raw(tap))
    return [(name, levels) for name, levels in found if levels]
