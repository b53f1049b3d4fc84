"""The model that the Runner trains: an unmodified student, its teachers, named objectives."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.dist import is_distributed
from torch import Tensor, nn

from mmkd.balance import Balance, build_balance, scale_terms
from mmkd.balance.balance import Terms
from mmkd.borrowed import Borrower
from mmkd.building import build_objectives, build_teachers
from mmkd.checks.guard import Guard
from mmkd.config import with_preprocessor
from mmkd.edits import apply_edits
from mmkd.generated import check_makers, generate
from mmkd.heard import Heard, Twins
from mmkd.held_back import hold_back, look_at_held
from mmkd.inference import for_prediction
from mmkd.peers import Peers
from mmkd.pixels import Pixels
from mmkd.plan import Plan
from mmkd.plan.probe import run_to_taps
from mmkd.registry import MODELS
from mmkd.scales import build_augments
from mmkd.schedule import Progress
from mmkd.students import student_of
from mmkd.tap import Recorder, Side, Trace, require_gradient
from mmkd.task_weight import check_number_or_mapping, scale_task
from mmkd.teacher import build_model
from mmkd.timing import StepTimer
from mmkd.trains import PLAYERS, Trains, keep_alive, player_of
from mmkd.unlabelled import add_unlabelled, split_batch
from mmkd.untouched import at_rest, untouched_random_state


@MODELS.register_module()
class Distiller(Borrower):
    """A student that is trained with objectives, and otherwise behaves like the plain student.

    It uses the student's own children, so parameter names, checkpoints, EMA, optimiser rules
    and hooks have the plain model's keys; parameters of objectives are named ``objectives.*``, and
    teachers are stored outside the module tree.

    Args:
        student (dict | nn.Module): model mapping of a stock config, or a built model.
        objectives (dict[str, dict | Objective]): the terms of the distillation loss, by name.
        teacher (dict | Teacher | None): arguments of :class:`~mmkd.teacher.Teacher`, or of another
            kind (:mod:`mmkd.teachers`) with its ``type``, or a mapping of several by name.
        task_weight (float | dict[str, float] | None): factor of the student's own losses; a mapping
            gives factors to the losses whose name contains the key. ``None``: they are not
            computed; the student runs as far as its taps, and what lies behind them does not train.
        preflight (bool | dict): checks before and in the first steps. ``steps`` (5) guarded
            steps, ``ratio`` (100) above which a term is reported, ``score`` (0) validation
            samples on which the teacher is evaluated first. ``False`` switches all off.
        peers (dict[str, dict | nn.Module] | None): networks that learn beside the student, by name:
            a model mapping of a stock config, a config's path or a built model each.
        balance (float | dict | Balance | None): factors of the terms, by their gradients in each
            step, see :mod:`mmkd.balance`; 0.3 keeps each at this share of the task's gradient.
        trains (str | tuple[str] | dict[str, dict]): who trains: ``'student'``, ``'objectives'``
            (their own parameters), ``'peers'``. What is left out keeps its weights and statistics.
            A mapping gives turns: ``dict(student=dict(every=6, count=5), …)``, see
            :class:`~mmkd.schedule.Schedule`.
        edits (list[dict | Callable]): changes of the student between its build and the loading of
            its weights, such as ``dict(type='mmkd.FakeQuant', bits=4)``, see :mod:`mmkd.edits`.
        data_preprocessor (dict | None): passed by the Runner from the top of a config; used for
            the student if it has none itself.

    Raises:
        ValueError: an unsuitable teacher, tap, edit or option; see Teacher, Tap, each edit and
            each objective.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """A Distiller, or its student where a stock function builds a model to predict."""
        if kwargs and for_prediction():
            student, preprocessor = student_of(kwargs), kwargs.get('data_preprocessor')
            return build_model(with_preprocessor(student, preprocessor))
        return super().__new__(cls)

    def __init__(
        self,
        student: dict | nn.Module,
        objectives: Mapping[str, Any],
        teacher: Any = None,
        task_weight: float | Mapping[str, float] | None = 1.0,
        preflight: bool | Mapping[str, Any] = True,
        balance: Any = None,
        trains: str | Sequence[str] | Mapping[str, Any] = PLAYERS,
        edits: Sequence[Any] = (),
        data_preprocessor: dict | None = None,
        peers: Mapping[str, Any] | None = None,
    ) -> None:
        who_trains, task_weight = Trains.of(trains), check_number_or_mapping(task_weight)
        if edits and peers:
            raise ValueError(
                f'edits= beside peers= ({", ".join(peers)}) leaves open which of the networks that '
                "learn is edited. Edit it where it is written: student=dict(type='mmkd.Edited', "
                'model=…, edits=[…]), or a peer likewise.'
            )
        built = apply_edits(build_model(with_preprocessor(student, data_preprocessor)), edits)
        build_augments(built)
        super().__init__()
        self._borrow(built)
        # Nothing below may move the student's random stream: weight 0 equals stock training.
        with untouched_random_state():
            self.teachers = build_teachers(teacher)
            for one in self.teachers.values():
                one.meet(built)
            named = build_objectives(objectives)
            beside = Peers(peers, data_preprocessor)
            for objective in named.values():
                objective.trains = who_trains
            self.balance = build_balance(balance)
            networks, rules = dict(beside.items()), dict(balance=self.balance, trains=who_trains)
            self.plan = Plan(built, self.teachers, named, networks, **rules).prepare()
            check_makers(named, task_weight is not None, beside)
            self.plan.freeze(tasks=task_weight is not None)
        for name in beside:
            beside.listen(name, self.plan.taps_of(name))
        if beside:
            self.peers = beside
        else:
            self.__dict__['peers'] = beside  # no child without any
        self.objectives = nn.ModuleDict(named)
        self.trains, self.task_weight = who_trains, task_weight
        self.guard = Guard.of(preflight)
        self.timer = StepTimer()
        self.recorder = Recorder(built, self.plan.taps_of('student'))
        self.twins = Twins()
        self.pixels = Pixels.of(built)

    def init_weights(self) -> None:
        """Initialise student and peers by their own configs, and nothing else."""
        super().init_weights()
        self.peers.init_weights()

    def to(self, *args: Any, **kwargs: Any) -> Distiller:
        for teacher in self.teachers.values():
            teacher.to(*args, **kwargs)
        return super().to(*args, **kwargs)

    def _apply(self, fn: Any, recurse: bool = True) -> Distiller:
        super()._apply(fn, recurse)
        device = next(self.parameters()).device
        for teacher in self.teachers.values():
            teacher.to(device)
        return self

    def forward(
        self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor', **more: Any
    ) -> Any:
        """mmengine's three modes: ``'loss'`` distils, the others are the student's own."""
        if mode == 'loss':
            return self.loss(inputs, data_samples, **more)
        return self.run_student(inputs, data_samples, mode=mode, **more)

    def train_step(self, data: Any, optim_wrapper: Any) -> Any:
        """The student's own, in whose forward pass the objectives take part.

        Raises:
            RuntimeError: it has none, so that nothing would be distilled.
        """
        before = self.guard.batches
        result = super().train_step(data, optim_wrapper)
        progress = Progress.current()
        if self.guard.batches == before and any(
            objective.weight(progress) for objective in self.objectives.values()
        ):
            raise RuntimeError(
                f'{type(self.student).__name__}.train_step computes its losses without '
                "forward(mode='loss') and loss(inputs, data_samples), so that no objective takes "
                "part. Let it call self._run_forward(data, mode='loss')."
            )
        return result

    def loss(self, inputs: Tensor, samples: list | None, **more: Any) -> dict[str, Any]:
        """One student forward: its own losses under their names, plus ``kd.<objective>.<key>``."""
        progress = Progress.current()
        inputs, samples = generate(self.objectives, inputs, samples, progress)
        self.guard.look_at(self.student, samples or [])
        if self.guard.watch is not None:
            self.guard.watch.begin(inputs, samples, more)
        weights = {name: o.weight(progress) for name, o in self.objectives.items()}
        self._wake_teachers(weights, progress)
        active = [n for n, weight in weights.items() if weight > 0 and self._teaches(n, progress)]
        inputs, samples, held = hold_back(self.objectives, active, inputs, samples)
        free = None
        if self.task_weight is not None and self.trains('student', progress):
            (inputs, samples), free = split_batch(inputs, samples)
        sides = self._run_teachers(active, inputs, samples or [])
        if any(self.objectives[name].needs_input_gradient for name in active):
            inputs = inputs.detach().requires_grad_()
        with self.timer('student'), self.recorder.record(inputs) as student:
            losses = self._run_student(active, progress, inputs, samples, **more)
        for name, side in sides.items():
            self.teachers[name].join(side)
        second = look_at_held(self, held, progress)
        living = {'student': (student, samples or [])}
        beside = self._run_peers(living, inputs, samples or [], active, progress)
        traces = {name: self.trace(name, living, sides, progress) for name in active}
        for name, trace in second.items():
            traces[name].second = trace
        for name, trace in traces.items():
            self.plan.check_step(name, trace)
        with self.timer('objectives'):
            terms = {name: self._terms(name, weights[name], traces.get(name)) for name in weights}
        if free is not None:
            add_unlabelled(self, terms, weights, active, free, len(samples), progress)
        if self.balance is not None and active and self.trains('student', progress):
            heard = Trace(inputs, samples or [], student, {}, progress)
            terms, traces = self._balanced(self.balance, terms, losses, heard, traces)
            for key, value in self.balance.logged().items():
                found = value if isinstance(value, Tensor) else inputs.new_full((), value)
                losses[key] = found.float()
        seen = [side for side, _ in living.values()]
        self.timer.measure_backward(terms, seen, self.objectives.parameters())
        self.guard(self, losses | beside, terms, traces)
        losses.update(beside)
        for named in terms.values():
            losses.update(named)
        return losses

    def _run_peers(
        self,
        living: dict[str, tuple[Side, list]],
        inputs: Tensor,
        samples: list,
        active: list[str],
        progress: Progress,
    ) -> dict[str, Any]:
        """The peers' own losses; adds what they recorded to the networks that learn."""
        losses: dict[str, Any] = {}
        trains = self.trains('peers', progress)
        with self.timer('peers'):
            for name in self.peers:
                taps = None if trains else self.plan.taps_of(name, active)
                found, living[name] = self.peers.step(name, inputs, samples, self.pixels, taps)
                losses.update(found)
        self.timer.measure_peers(losses, self.peers.parameters())
        return losses

    def _balanced(
        self, balance: Balance, terms: Terms, task: dict, trace: Trace, traces: dict[str, Trace]
    ) -> tuple[dict, dict[str, Trace]]:
        """Terms times their factors, and the traces of those that still count."""
        with self.timer('balance'):
            factors = balance(terms, task, trace, trace.progress)
            scaled = scale_terms(terms, factors, balance, trace.progress)
        return scaled, {name: t for name, t in traces.items() if factors.get(name, 1.0)}

    def trace(
        self,
        name: str,
        living: Mapping[str, tuple[Side, list]],
        frozen: Mapping[str, Side],
        progress: Progress,
    ) -> Trace:
        """What the objective ``name`` sees of a step.

        Args:
            living (dict[str, tuple[Side, list]]): record and data samples of the networks that
                learn, by name.
            frozen (dict[str, Side]): records of teachers.
        """
        objective = self.objectives[name]
        seen, samples = living[objective.learner]
        teachers = {}
        for judge in self.plan.teacher_names(objective):
            if judge in frozen:
                teachers[judge] = frozen[judge]
            elif judge in living:
                side = living[judge][0]
                teachers[judge] = side if objective.teaches_back else Heard(side, self.twins)
        scale = objective.image_scale
        if scale != 1 and samples and 'full_scale' not in samples[0]:
            raise ValueError(
                f"objective '{name}': the student is to see images of {scale} of the side of its "
                "teacher's, but this batch is unscaled: batches must come out of the student's "
                'data_preprocessor, in training.'
            )
        return Trace(seen.inputs, samples, seen, teachers, progress, scale=scale)

    def _wake_teachers(self, weights: dict[str, float], progress: Progress) -> None:
        """Tell listened teachers of the step; whoever listens to one that is not ready rests."""
        listeners: dict[str, list[str]] = {}
        for name, weight in weights.items():
            self.objectives[name].rests = False
            heard = self.plan.teacher_names(self.objectives[name]) if weight > 0 else []
            for teacher in filter(self.teachers.__contains__, heard):
                listeners.setdefault(teacher, []).append(name)
        for teacher, names in listeners.items():
            self.teachers[teacher].before_step(progress)
            for name in names if not self.teachers[teacher].ready else ():
                weights[name], self.objectives[name].rests = 0.0, True

    def _teaches(self, name: str, progress: Progress) -> bool:
        """Whether anybody who trains in this step learns from an objective."""
        objective = self.objectives[name]
        learners = [objective.learner]
        if objective.teaches_back:
            heard = self.plan.teacher_names(objective)
            learners += [judge for judge in heard if judge not in self.teachers]
        if any(self.trains(player_of(learner), progress) for learner in learners):
            return True
        own = any(p.requires_grad for p in objective.parameters())
        return own and self.trains('objectives', progress)

    def _run_student(
        self, active: list[str], progress: Progress, inputs: Tensor, samples: Any, **more: Any
    ) -> dict[str, Any]:
        """The student's own losses, scaled; or none, and no more of it than what is looked at."""
        trains = self.trains('student', progress)
        if trains and self.task_weight is not None:
            losses = self.run_student(inputs, samples, mode='loss', **more)
            return scale_task(losses, self.task_weight)
        taps = self.plan.taps_of('student', active)
        if taps or trains:
            with contextlib.nullcontext() if trains else at_rest(self.student):
                run_to_taps(self.student, taps, inputs, samples or [])
        alone = not is_distributed() and active  # else DDP waits for every gradient
        return {} if alone else keep_alive('zero_loss', self.student.parameters())

    def resting(self) -> list[nn.Parameter]:
        """Parameters that train in this run, but not in this step."""
        players = dict(student=self.student, objectives=self.objectives, peers=self.peers)
        progress = Progress.current()
        return [
            parameter
            for player, module in players.items()
            if not self.trains(player, progress)
            for parameter in module.parameters()
            if parameter.requires_grad
        ]

    def _run_teachers(self, active: list[str], inputs: Tensor, samples: list) -> dict[str, Side]:
        """Start the teachers that an active objective needs."""
        wanted = {
            teacher
            for objective in map(self.objectives.__getitem__, active)
            if objective.teacher_taps
            for teacher in self.plan.teacher_names(objective)
            if teacher in self.teachers
        }
        with self.timer('teacher'):
            sides = {
                n: self.teachers[n].start(inputs, samples, self.pixels) for n in sorted(wanted)
            }
            for name, side in sides.items() if self.timer.enabled else ():
                self.teachers[name].join(side)  # else the clock would not see a side stream
        return sides

    def _terms(self, name: str, weight: float, trace: Trace | None) -> dict[str, Tensor]:
        """Weighted losses and log values of one objective."""
        objective = self.objectives[name]
        if trace is None:
            return keep_alive(f'kd.{name}.loss', objective.parameters())
        numbers = objective.set_numbers(trace.progress)
        device = trace.inputs.device.type
        with torch.autocast(device, enabled=False):
            if self.trains(player_of(objective.learner), trace.progress):
                require_gradient(trace.student, objective.student_taps)
            result = objective(trace)
        if not isinstance(result, Mapping):
            result = {'loss': result}
        full = trace.inputs.new_full
        terms = {f'kd.{name}.{k}': full((), v, dtype=torch.float32) for k, v in numbers.items()}
        for key, value in result.items():
            if not isinstance(value, Tensor) or value.numel() != 1:
                found = tuple(value.shape) if isinstance(value, Tensor) else repr(value)
                raise TypeError(
                    f"objective '{name}' returned {key!r} = {found}; losses and logged values "
                    'must be tensors of one element.'
                )
            if key.startswith('loss'):
                terms[f'kd.{name}.{key}'] = value * weight
            elif 'loss' in key:
                raise ValueError(
                    f"objective '{name}' returned {key!r}: mmengine adds up every key with 'loss' "
                    "in it. Let losses start with 'loss' and logged values not contain it."
                )
            else:
                terms[f'kd.{name}.{key}'] = value
        return terms
