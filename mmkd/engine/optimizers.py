"""Objectives with an optimiser of their own: one backward for all, and all step together."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import OPTIMIZERS
from torch import Tensor, nn
from torch.optim import Optimizer

from mmkd.objective import Objective
from mmkd.schedule import Progress

STUDENT = 'student'


class JointOptimWrapper(OptimWrapperDict):
    """The student's optimiser and those of objectives that have their own.

    The student's wrapper decides about precision, gradient accumulation and when to step; it clips
    its own gradients only. The others are plain and in float32: what its loss scaling did to their
    gradients is undone. While its objective rests, nothing moves what an optimiser trains.

    In logs, checkpoints and ``param_scheduler`` they are called ``student`` and
    ``kd.<objective>``.

    Args:
        student (OptimWrapper): what the config's ``optim_wrapper`` asks for.
        objectives (dict[str, Objective]): by name, each with an ``optimizer``.
    """

    def __init__(self, student: OptimWrapper, objectives: Mapping[str, Objective]) -> None:
        own = {key_of(name): OptimWrapper(own_optimizer(o)) for name, o in objectives.items()}
        super().__init__(**{STUDENT: student, **own})
        self.student, self.objectives = student, objectives

    def update_params(
        self, loss: Tensor, step_kwargs: dict | None = None, zero_kwargs: dict | None = None
    ) -> None:
        """One backward pass; then, unless gradients are being accumulated, every step."""
        # The gradient of this zero is the factor by which the wrapper scales all others.
        probe = torch.zeros((), device=loss.device, requires_grad=True)
        self.student.backward(self.student.scale_loss(loss) + probe)
        if not self.student.should_update():
            return
        self.student.step(**(step_kwargs or {}))
        self.student.zero_grad(**(zero_kwargs or {}))
        for name, objective in self.objectives.items():
            self._step(self[key_of(name)], objective, probe.grad)

    @staticmethod
    def _step(wrapper: OptimWrapper, objective: Objective, scale: Tensor) -> None:
        if objective.weight(Progress.current()) == 0:
            wrapper.zero_grad()  # parameters without gradients get neither decay nor momentum
        for group in wrapper.optimizer.param_groups:
            for parameter in group['params']:
                if parameter.grad is not None:
                    parameter.grad.div_(scale)
        wrapper.step()
        wrapper.zero_grad()

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
        if set(state_dict) != set(self.keys()):
            found = ', '.join(state_dict) if STUDENT in state_dict else 'one for all'
            raise ValueError(
                f'cannot resume: the optimisers of the checkpoint are {found}, those of this run '
                f'{", ".join(self.keys())}. Resume with the same objectives, or take the weights '
                'alone: load_from without resume.'
            )
        super().load_state_dict(state_dict)


def key_of(name: str) -> str:
    """What the optimiser of the objective ``name`` is called, as its losses are."""
    return f'kd.{name}'


def own_optimizer(objective: Objective) -> Optimizer:
    """A new optimiser of what an objective learns, as its ``optimizer`` says.

    Raises:
        ValueError: it cannot be built; the reason is torch's.
    """
    parameters = [p for p in objective.parameters() if p.requires_grad]
    config = objective.optimizer
    try:
        return OPTIMIZERS.build(dict(config, params=parameters))
    except (KeyError, TypeError, ValueError) as error:
        reason = error.args[0] if error.args else error
        raise ValueError(f'optimizer={config!r} cannot be built: {reason}') from None


def trained_apart(model: nn.Module) -> dict[str, Objective]:
    """By name, the objectives of a Distiller that learn with an optimiser of their own."""
    objectives = getattr(model, 'objectives', None)
    named = objectives.items() if isinstance(objectives, nn.ModuleDict) else ()
    return {
        name: objective
        for name, objective in named
        if objective.optimizer and any(p.requires_grad for p in objective.parameters())
    }


@contextlib.contextmanager
def without(modules: nn.ModuleDict, names: Iterable[str]) -> Iterator[None]:
    """Take some entries out for a while; they come back to their places."""
    everything = dict(modules._modules)
    for name in names:
        del modules[name]
    try:
        yield
    finally:
        modules._modules.clear()
        modules._modules.update(everything)


def build_optimizers(model: nn.Module, build: Callable[[], OptimWrapper]) -> OptimWrapper:
    """What ``build`` makes of all parameters but those that are trained apart, and these's own.

    Raises:
        ValueError: ``build`` gives several optimisers where an objective brings one of its own.
    """
    model = model.module if is_model_wrapper(model) else model
    apart = trained_apart(model)
    if not apart:
        return build()
    # Whatever a constructor asks the model for, it does not meet them.
    with without(model.objectives, apart):
        student = build()
    if isinstance(student, OptimWrapperDict):
        raise ValueError(
            f'optim_wrapper makes several optimisers ({", ".join(student.keys())}), and '
            f'{", ".join(apart)} brings its own: then the student must have a single one.'
        )
    return JointOptimWrapper(student, apart)


def check_schedulers(optim_wrapper: Any, schedulers: Any) -> None:
    """Schedules by optimiser must be complete, else ValueError."""
    if not isinstance(optim_wrapper, JointOptimWrapper) or not isinstance(schedulers, Mapping):
        return
    missing = [key for key, _ in optim_wrapper.items() if key not in schedulers]
    if missing and 'type' not in schedulers:
        raise ValueError(
            f'param_scheduler has no schedule for {", ".join(missing)}. Give each of '
            f'{", ".join(optim_wrapper.keys())} its own, or all of them one list.'
        )
