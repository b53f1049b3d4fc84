"""Stops a run before NaN or infinity reaches its weights or a checkpoint."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper, ApexOptimWrapper, OptimWrapper
from torch.optim import Optimizer

from mmkd.borrowed import unwrapped
from mmkd.checkpoint import not_finite
from mmkd.checkpoint.finite_weights import some
from mmkd.checks.finite import GradientWatch
from mmkd.engine.optimizers import JointOptimWrapper
from mmkd.registry import HOOKS


@HOOKS.register_module()
class FiniteHook(Hook):
    """Stops a run before a gradient that is not finite moves the weights, or before they are saved.

    :class:`mmkd.Runner` registers it by itself. Gradients are watched where a Distiller is trained;
    with loss scaling (AMP) the scaler skips such steps, which is no fault, and the guard looks at
    the losses alone. Weights, those of EMA included, are checked before a checkpoint is written.

    Raises:
        FloatingPointError: a loss, a gradient or a weight that is NaN or infinite, by name.
    """

    priority = 'LOWEST'  # after EMAHook has exchanged the weights that are saved

    def __init__(self) -> None:
        self.watch: GradientWatch | None = None

    def before_train(self, runner: Any) -> None:
        model = unwrapped(runner.model)
        wrapper = runner.optim_wrapper
        student = wrapper.student if isinstance(wrapper, JointOptimWrapper) else wrapper
        if not hasattr(model, 'guard') or not _steps_at_once(student):
            return
        others = [w.optimizer for w in wrapper.values()] if wrapper is not student else []
        optimizers = [student.optimizer, *(o for o in others if o is not student.optimizer)]
        self.watch = GradientWatch(model, optimizers, student._accumulative_counts)

    def after_train(self, runner: Any) -> None:
        if self.watch is not None:
            self.watch.remove()
            self.watch = None

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        model = unwrapped(runner.model)
        bad = not_finite(dict(model.named_parameters()), strict=True)
        bad += not_finite(checkpoint['state_dict']) + not_finite(checkpoint.get('ema_state_dict'))
        if bad:
            raise FloatingPointError(
                f'no checkpoint is written at iteration {checkpoint["meta"]["iter"]}: '
                f'{some(dict.fromkeys(bad))} would hold NaN or infinity. The checkpoint before is '
                'the last good one. Lower the learning rate, clip gradients, or train without AMP.'
            )


def _steps_at_once(wrapper: Any) -> bool:
    """Whether a step is one of torch's optimisers', with gradients that nothing has scaled."""
    scaled = isinstance(wrapper, (AmpOptimWrapper, ApexOptimWrapper))
    known = isinstance(wrapper, OptimWrapper) and isinstance(wrapper.optimizer, Optimizer)
    return known and not scaled
