"""The model that the Runner trains: an unmodified student, its teachers, named objectives."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.balance import Balance, build_balance, scale_terms
from mmkd.balance.balance import Terms
from mmkd.borrowed import Borrower
from mmkd.checks.guard import Guard
from mmkd.errors.origin import is_ours
from mmkd.heard import Heard, Twins
from mmkd.inference import for_prediction
from mmkd.names import did_you_mean
from mmkd.objective import Objective
from mmkd.options import check_flags, match_options, options_of
from mmkd.peers import Peers
from mmkd.pixels import Pixels
from mmkd.plan import Plan
from mmkd.registry import MODELS
from mmkd.schedule import Progress
from mmkd.tap import Recorder, Side, Trace, require_gradient
from mmkd.task_weight import check_number_or_mapping, scale_task
from mmkd.teacher import Teacher, build_model
from mmkd.teachers import build_teacher, is_teacher
from mmkd.timing import StepTimer
from mmkd.untouched import untouched_random_state


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
        task_weight (float | dict[str, float]): factor of the student's own losses; a mapping
            gives factors to the losses whose name contains the key.
        preflight (bool | dict): checks before and in the first steps. ``steps`` (5) guarded
            steps, ``ratio`` (100) above which a term is reported, ``score`` (0) validation
            samples on which the teacher is evaluated first. ``False`` switches all off.
        peers (dict[str, dict | nn.Module] | None): networks that learn beside the student, by name:
            a model mapping of a stock config, a config's path or a built model each.
        balance (float | dict | Balance | None): factors of the terms, by their gradients in each
            step, see :mod:`mmkd.balance`; 0.3 keeps each at this share of the task's gradient.
        data_preprocessor (dict | None): passed by the Runner from the top of a config; used for
            the student if it has none itself.

    Raises:
        ValueError: an unsuitable teacher, tap or option; see Teacher, Tap and each objective.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """A Distiller, or its student where a stock function builds a model to predict."""
        if kwargs and for_prediction():
            student, preprocessor = kwargs['student'], kwargs.get('data_preprocessor')
            return build_model(with_preprocessor(student, preprocessor))
        return super().__new__(cls)

    def __init__(
        self,
        student: dict | nn.Module,
        objectives: Mapping[str, Any],
        teacher: Any = None,
        task_weight: float | Mapping[str, float] = 1.0,
        preflight: bool | Mapping[str, Any] = True,
        balance: Any = None,
        data_preprocessor: dict | None = None,
        peers: Mapping[str, Any] | None = None,
    ) -> None:
        built = build_model(with_preprocessor(student, data_preprocessor))
        super().__init__()
        self._borrow(built)
        # Nothing below may move the student's random stream: weight 0 equals stock training.
        with untouched_random_state():
            self.teachers = build_teachers(teacher)
            for one in self.teachers.values():
                one.meet(built)
            named = build_objectives(objectives)
            beside = Peers(peers, data_preprocessor)
            self.balance = build_balance(balance)
            plan = Plan(built, self.teachers, named, dict(beside.items()), balance=self.balance)
            self.plan = plan.prepare()
        for name in beside:
            beside.listen(name, self.plan.taps_of(name))
        if beside:
            self.peers = beside
        else:
            self.__dict__['peers'] = beside  # no child without any
        self.objectives = nn.ModuleDict(named)
        for objective in named.values():
            if objective.weight.is_zero:
                objective.requires_grad_(False)
        self.task_weight = check_number_or_mapping(task_weight)
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
        self.guard.look_at(self.student, samples or [])
        if self.guard.watch is not None:
            self.guard.watch.begin(inputs, samples, more)
        progress = Progress.current()
        weights = {name: o.weight(progress) for name, o in self.objectives.items()}
        self._wake_teachers(weights, progress)
        active = [name for name, weight in weights.items() if weight > 0]
        sides = self._run_teachers(active, inputs, samples or [])
        if any(self.objectives[name].needs_input_gradient for name in active):
            inputs = inputs.detach().requires_grad_()
        with self.timer('student'), self.recorder.record(inputs) as student:
            losses = self.run_student(inputs, samples, mode='loss', **more)
        for name, side in sides.items():
            self.teachers[name].join(side)
        losses = scale_task(losses, self.task_weight)
        living = {'student': (student, samples or [])}
        beside = self._run_peers(living, inputs, samples or [])
        traces = {name: self.trace(name, living, sides, progress) for name in active}
        for name, trace in traces.items():
            self.plan.check_step(name, trace)
        with self.timer('objectives'):
            terms = {name: self._terms(name, weights[name], traces.get(name)) for name in weights}
        if self.balance is not None and active:
            heard = Trace(inputs, samples or [], student, {}, progress)
            terms, traces = self._balanced(self.balance, terms, losses, heard, traces)
            losses |= {k: inputs.new_full((), v) for k, v in self.balance.logged().items()}
        seen = [side for side, _ in living.values()]
        self.timer.measure_backward(terms, seen, self.objectives.parameters())
        self.guard(self, losses | beside, terms, traces)
        losses.update(beside)
        for named in terms.values():
            losses.update(named)
        return losses

    def _run_peers(
        self, living: dict[str, tuple[Side, list]], inputs: Tensor, samples: list
    ) -> dict[str, Any]:
        """The peers' own losses; adds what they recorded to the networks that learn."""
        losses: dict[str, Any] = {}
        with self.timer('peers'):
            for name in self.peers:
                found, living[name] = self.peers.step(name, inputs, samples, self.pixels)
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
                teachers[judge] = Heard(living[judge][0], self.twins)
        return Trace(seen.inputs, samples, seen, teachers, progress)

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
            return _keep_alive(name, objective)
        numbers = objective.set_numbers(trace.progress)
        device = trace.inputs.device.type
        with torch.autocast(device, enabled=False):
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


def with_preprocessor(student: Any, preprocessor: dict | None) -> Any:
    """A student's config with the data preprocessor of the run, if it names none itself."""
    if preprocessor and not isinstance(student, nn.Module):
        student.setdefault('data_preprocessor', preprocessor)
    return student


def _keep_alive(name: str, objective: nn.Module) -> dict[str, Tensor]:
    """A zero that still reaches the parameters of a resting objective, which DDP insists on."""
    trained = [p for p in objective.parameters() if p.requires_grad]
    if not trained:
        return {}
    return {f'kd.{name}.loss': sum(p.sum() * 0.0 for p in trained)}


def build_teachers(teacher: Any) -> dict[str, Teacher]:
    """One teacher under the name ``'teacher'``, or several under their own."""
    if teacher is None:
        return {}
    if isinstance(teacher, Teacher):
        return {'teacher': teacher}
    if not isinstance(teacher, Mapping):
        raise TypeError(
            'teacher must be dict(config=…, checkpoint=…) or a mapping of those, '
            f'found {teacher!r}.'
        )
    if is_teacher(teacher):
        return {'teacher': build_teacher(teacher)}
    result = {}
    for name, entry in teacher.items():
        if not isinstance(entry, Teacher) and not is_teacher(entry):
            raise ValueError(
                f'teacher: {name!r} is neither an argument (config, checkpoint, …) nor a named '
                f'teacher dict(config=…, checkpoint=…): {entry!r}.'
            )
        same = next((other for other in result if _is_same(teacher[other], entry)), None)
        if same is not None:
            result[name] = copy.copy(result[same])  # of one network: it is loaded once
        else:
            result[name] = entry if isinstance(entry, Teacher) else build_teacher(entry)
    return result


def _is_same(entry: Any, other: Any) -> bool:
    """Whether two entries name one config file and checkpoint, with equal options."""
    named = isinstance(entry, Mapping) and isinstance(entry.get('config'), str)
    same = named and isinstance(other, Mapping) and dict(entry) == dict(other)
    return same and 'type' not in entry and entry.get('checkpoint') != 'random'


def build_objectives(objectives: Mapping[str, Any]) -> dict[str, Objective]:
    """Build each entry; the names become part of log keys and checkpoint keys.

    Raises:
        ValueError: a name with a dot or with ``loss`` in it.
        TypeError: something that is no Objective.
    """
    if not isinstance(objectives, Mapping):
        raise TypeError(
            'objectives must be a mapping of names, dict(my_name=dict(type=…)), '
            f'found {objectives!r}.'
        )
    built = {}
    for name, entry in objectives.items():
        if 'loss' in name or '.' in name or not name or hasattr(nn.ModuleDict, name):
            raise ValueError(
                f'objective name {name!r}: dots are path separators, and mmengine adds up every '
                "log key that contains 'loss'; torch keeps some names (train, pop, …) for itself. "
                'Choose another name.'
            )
        if entry is None:  # merged away by a child config
            continue
        try:
            objective = entry if isinstance(entry, Objective) else build_objective(entry)
        except (ValueError, TypeError) as error:
            if not is_ours(error):
                raise
            raise type(error)(f"objective '{name}': {error}") from None
        if not isinstance(objective, Objective):
            raise TypeError(f"objective '{name}' is a {type(objective).__name__}, no Objective.")
        built[name] = objective
    return built


def build_objective(entry: Mapping[str, Any]) -> Objective:
    """Build one config entry; for an unknown type or argument the error lists the known ones.

    Raises:
        ValueError: unknown type.
        TypeError: unknown argument.
    """
    from mmkd.methods import names

    if not isinstance(entry, Mapping):
        raise TypeError(f"must be dict(type='mmkd.…', …) or an Objective, found {entry!r}.")
    kind = entry.get('type')
    method: Any = MODELS.get(kind) if isinstance(kind, str) else kind
    if not isinstance(method, type):
        raise ValueError(
            f'type={kind!r} is not registered. Methods of mmkd: {", ".join(names())}.'
            f'{did_you_mean(str(kind).rpartition(".")[2], names())}'
        )
    given = {k: v for k, v in entry.items() if k not in ('type', '_scope_')}
    options = match_options(method.__name__, given, options_of(method))
    check_flags(method, options)
    return method(**options)
