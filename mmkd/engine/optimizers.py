"""Objectives with an optimiser of their own: one backward for all, and all step together."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict, build_optim_wrapper
from torch import Tensor, nn

from mmkd.borrowed import unwrapped
from mmkd.objective import Objective
from mmkd.own_optimizers import key_of, own_optimizer, trained_apart
from mmkd.peers import peer_key
from mmkd.schedule import Progress
from mmkd.trains import PLAYERS, Trains

STUDENT = 'student'
#: what schedules say in absolute numbers
RATES = ('eta_min', 'eta_max', 'min_value')


class JointOptimWrapper(OptimWrapperDict):
    """The student's optimiser and those of objectives that have their own.

    The student's wrapper decides about precision, gradient accumulation and when to step; it clips
    its own gradients only. The others are plain and in float32: what its loss scaling did to their
    gradients is undone, and where it made them overflow the step is left out. While the weight of
    its objective is 0, an optimiser does not step. Peers have optimisers like the student's, which
    clip theirs.

    In logs, checkpoints and ``param_scheduler`` they are called ``student``, ``kd.<objective>`` and
    ``peer.<name>``.

    Args:
        student (OptimWrapper): built from the config's ``optim_wrapper``.
        objectives (dict[str, Objective]): by name, each with an ``optimizer``.
        peers (dict[str, OptimWrapper] | None): by name, plain ones.
        resting (Callable): parameters that do not train in the present step; they get no update,
            nor decay, and their momentum stays.
    """

    def __init__(
        self,
        student: OptimWrapper,
        objectives: Mapping[str, Objective],
        peers: Mapping[str, OptimWrapper] | None = None,
        resting: Callable[[], Iterable[nn.Parameter]] = tuple,
    ) -> None:
        own = {key_of(name): OptimWrapper(own_optimizer(o)) for name, o in objectives.items()}
        own |= {peer_key(name): wrapper for name, wrapper in (peers or {}).items()}
        super().__init__(**{STUDENT: student, **own})
        self.student, self.objectives, self.resting = student, objectives, resting

    def update_params(
        self, loss: Tensor, step_kwargs: dict | None = None, zero_kwargs: dict | None = None
    ) -> None:
        """One backward pass; then, unless gradients are being accumulated, every step."""
        # The gradient of this zero is the factor by which the wrapper scales all others.
        probe = torch.zeros((), device=loss.device, requires_grad=True)
        self.student.backward(self.student.scale_loss(loss) + probe)
        if not self.student.should_update():
            return
        for name, objective in self.objectives.items():
            if objective.rests or objective.weight(Progress.current()) == 0:
                # Parameters without gradients get neither decay nor momentum.
                self[key_of(name)].zero_grad()
        for parameter in self.resting():
            parameter.grad = None
        others = [wrapper for name, wrapper in self.items() if name != STUDENT]
        scaler = getattr(self.student, 'loss_scaler', None)
        if scaler is not None:  # before the student's step, which ends with a new scale
            _step_scaled(scaler, others)
        if scaler is None or _has_gradient(self.student):
            self.student.step(**(step_kwargs or {}))
        elif any(state['found_inf_per_device'] for state in scaler._per_optimizer_states.values()):
            scaler.update()  # the scaler refuses to step an optimiser without any gradient
        self.student.zero_grad(**(zero_kwargs or {}))
        if scaler is None:
            _step_plainly(others, probe.grad)

    def optim_context(self, model: nn.Module) -> Any:
        """The student's: autocast, and no synchronisation between accumulated gradients."""
        return self.student.optim_context(model)

    def initialize_count_status(self, model: nn.Module, cur_iter: int, max_iters: int) -> None:
        self.student.initialize_count_status(model, cur_iter, max_iters)

    def get_lr(self) -> dict[str, list[float]]:
        """The student's under the names of any other run, the others' with a prefix."""
        rates = {k: v for k, v in super().get_lr().items() if not k.startswith(f'{STUDENT}.')}
        return {**self.student.get_lr(), **rates}

    def load_state_dict(self, state_dict: dict) -> None:
        """Continue each optimiser.

        Raises:
            ValueError: the checkpoint is of a run with other optimisers.
        """
        check_same_optimizers(self, state_dict)
        super().load_state_dict(state_dict)


def _step_scaled(scaler: Any, wrappers: list[OptimWrapper]) -> None:
    """Let the scaler undo its scaling, and leave out the steps of gradients that overflow."""
    for wrapper in wrappers:
        if _has_gradient(wrapper):
            if wrapper.clip_grad_kwargs:
                scaler.unscale_(wrapper.optimizer)
                wrapper._clip_grad()
            scaler.step(wrapper.optimizer)
        wrapper.zero_grad()


def _has_gradient(wrapper: OptimWrapper) -> bool:
    return any(p.grad is not None for group in wrapper.param_groups for p in group['params'])


def _step_plainly(wrappers: list[OptimWrapper], scale: Tensor) -> None:
    """Step with gradients that are ``scale`` times too large."""
    for wrapper in wrappers:
        for group in wrapper.param_groups:
            for parameter in group['params']:
                if parameter.grad is not None:
                    parameter.grad.div_(scale)
        wrapper.step()
        wrapper.zero_grad()


@contextlib.contextmanager
def without(modules: Any, names: Iterable[str]) -> Iterator[None]:
    """Take some entries of a ModuleDict out for a while; they come back to their places."""
    if not isinstance(modules, nn.ModuleDict):
        yield
        return
    everything = dict(modules._modules)
    for name in names:
        del modules[name]
    try:
        yield
    finally:
        modules._modules.clear()
        modules._modules.update(everything)


def build_optimizers(
    model: nn.Module, build: Callable[[], OptimWrapper], config: Any = None
) -> OptimWrapper:
    """``build``'s optimiser for all other parameters, joined with those of objectives and peers.

    Args:
        config (dict): ``optim_wrapper``, for the peers.

    Raises:
        ValueError: ``build`` gives several optimisers where an objective brings one of its own.
    """
    model = unwrapped(model)
    trains, peers = getattr(model, 'trains', None), getattr(model, 'peers', None)
    if not isinstance(trains, Trains):
        return build()
    apart, peers = trained_apart(model), peers if isinstance(peers, nn.ModuleDict) else {}
    # Whatever a constructor asks the model for, it does not meet them.
    with without(model.objectives, apart), without(peers, list(peers)):
        if not any(p.requires_grad for p in model.parameters()):
            model.objectives['nothing'] = nn.ParameterList([torch.zeros(())])  # has the rates
        student = build()
    several = isinstance(student, OptimWrapperDict)
    if trains.turns.keys() != set(PLAYERS) or model.task_weight is None:
        for wrapper in student.values() if several else [student]:
            drop_frozen(wrapper)
    peers = {name: peer for name, peer in peers.items() if 'peers' in trains}
    if not apart and not peers and not trains.in_turns:
        return student
    if several:
        own = ', '.join([*apart, *peers])
        raise ValueError(
            f'optim_wrapper makes several optimisers ({", ".join(student.keys())}), and '
            f'{own + " brings its own" if own else "trains gives turns"}: then the student must '
            'have a single one.'
        )
    beside = {name: like(config, name, peer) for name, peer in peers.items()}
    return JointOptimWrapper(student, apart, beside, model.resting)


def like(config: Mapping[str, Any], name: str, peer: nn.Module) -> OptimWrapper:
    """A peer's optimiser from the student's ``optim_wrapper``: its rules, rates and clipping.

    It is a plain one, as :class:`JointOptimWrapper` undoes what the student's does for precision.
    """
    built = build_optim_wrapper(peer, copy.deepcopy(config))
    wrapper = OptimWrapper(built.optimizer)
    if built.clip_grad_kwargs:
        wrapper.clip_grad_kwargs, wrapper.clip_func = built.clip_grad_kwargs, built.clip_func
        wrapper.grad_name = f'{peer_key(name)}.{built.grad_name}'  # the student's has no prefix
    return wrapper


def drop_frozen(wrapper: OptimWrapper) -> None:
    """Take parameters that do not train out of an optimiser."""
    for group in wrapper.param_groups:
        group['params'] = [p for p in group['params'] if p.requires_grad]
    wrapper.param_groups[:] = [group for group in wrapper.param_groups if group['params']]


def leading(optim_wrapper: OptimWrapper) -> OptimWrapper:
    """Who decides when all step: of several optimisers the student's, or the first."""
    if not isinstance(optim_wrapper, OptimWrapperDict):
        return optim_wrapper
    wrappers = dict(optim_wrapper.items())
    return wrappers.get(STUDENT) or next(iter(wrappers.values()))


def accumulated(optim_wrapper: OptimWrapper) -> int:
    """Iterations that make one step."""
    return leading(optim_wrapper)._accumulative_counts


def check_same_optimizers(optim_wrapper: OptimWrapper, state: Mapping[str, Any]) -> None:
    """A checkpoint's optimisers must be those of this run and train as much, else ValueError.

    Args:
        state (Mapping): of one optimiser, or of several by name.
    """
    several = isinstance(optim_wrapper, OptimWrapperDict)
    wanted = dict(optim_wrapper.items()) if several else {'one for all': optim_wrapper}
    found = {'one for all': state} if 'param_groups' in state else state
    if set(found) != set(wanted):
        raise ValueError(
            f'cannot resume: the optimisers of the checkpoint are {", ".join(found)}, those of '
            f'this run {", ".join(wanted)}. Resume with the same objectives, or take the weights '
            'alone: load_from without resume.'
        )
    for name, wrapper in wanted.items():
        groups = found[name]['param_groups'], wrapper.optimizer.param_groups
        then, now = ([len(group['params']) for group in one] for one in groups)
        if then != now:
            raise ValueError(
                f'cannot resume: an optimiser of the checkpoint has {sum(then)} parameters in '
                f'{len(then)} groups, that of this run {sum(now)} in {len(now)}. Resume with the '
                'same student and objectives, or take the weights alone: load_from without resume.'
            )


def schedules(optim_wrapper: OptimWrapper, configs: Any) -> Any:
    """The schedule of each optimiser in a ``param_scheduler``.

    One schedule for all keeps the ratio of their rates: bounds that are rates, such as PolyLR's
    ``eta_min``, are the student's, and in proportion those of the others.

    Args:
        configs (dict | list | None): one or several schedules, or such by optimiser.

    Raises:
        ValueError: schedules by optimiser that leave one out.
    """
    if not isinstance(optim_wrapper, JointOptimWrapper) or configs is None:
        return configs
    names = list(optim_wrapper.keys())
    if isinstance(configs, Mapping) and 'type' not in configs:
        missing = [name for name in names if name not in configs]
        if missing:
            raise ValueError(
                f'param_scheduler has no schedule for {", ".join(missing)}. Give each of '
                f'{", ".join(names)} its own, or all of them one list.'
            )
        return configs
    listed = [configs] if isinstance(configs, Mapping) else configs
    rates = {name: optim_wrapper[name].optimizer.defaults['lr'] for name in names}
    return {
        name: [_in_proportion(config, rate / (rates[STUDENT] or rate)) for config in listed]
        for name, rate in rates.items()
    }


def _in_proportion(config: Any, ratio: float) -> Any:
    """A schedule of rates whose bounds are multiplied; anything else as it is."""
    if not isinstance(config, Mapping):
        return config
    kind = getattr(config['type'], '__name__', config['type'])
    if not kind.endswith('LR') and config.get('param_name') != 'lr':
        return config
    return {k: v * ratio if k in RATES else v for k, v in config.items()}
