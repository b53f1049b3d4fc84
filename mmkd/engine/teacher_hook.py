"""Teachers that move: told of every step, and part of a checkpoint for the runs that resume it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook

from mmkd.balance import Balance
from mmkd.borrowed import unwrapped
from mmkd.engine.optimizers import leading
from mmkd.registry import HOOKS
from mmkd.schedule import Progress

KEY = 'teachers'


@HOOKS.register_module()
class TeacherHook(Hook):
    """Tells teachers when training begins and what the optimiser did, and keeps their state.

    :class:`mmkd.Runner` registers it by itself. ``checkpoint['teachers']`` holds what a resumed run
    needs (:meth:`mmkd.Teacher.state_dict`), by name of the teacher; ``load_from`` without resume
    ignores it.
    """

    priority = 'LOW'  # behind EMAHook, before CheckpointHook writes what was moved

    def __init__(self) -> None:
        self.resumed = self.stepped = False

    def before_train(self, runner: Any) -> None:
        model = unwrapped(runner.model)
        if _teachers(runner):
            leading(runner.optim_wrapper).optimizer.register_step_post_hook(self._note_step)
        for name, teacher in _teachers(runner).items():
            try:
                teacher.check(runner)
            except ValueError as error:
                raise type(error)(f"teacher '{name}': {error}") from None
            if not self.resumed:
                teacher.begin(model.student)

    def _note_step(self, *_: Any) -> None:
        """Not called for gradients that are accumulated, nor for a step that AMP left out."""
        self.stepped = True

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        teachers = _teachers(runner)
        stepped, self.stepped = self.stepped, False
        if stepped:
            progress = Progress(runner.iter, runner.max_iters)
            for teacher in teachers.values():
                teacher.after_step(unwrapped(runner.model).student, progress)
        for name, teacher in teachers.items():
            for key, value in teacher.logged().items():
                runner.message_hub.update_scalar(f'train/{name}.{key}', value)

    def gather_state(self, runner: Any) -> None:
        """Collective; mmkd's CheckpointHook calls it on every rank just before it saves."""
        for teacher in _teachers(runner).values():
            teacher.synchronise()

    def after_save(self, runner: Any) -> None:
        """Collective; mmkd's CheckpointHook calls it on every rank just after it has saved."""
        for teacher in _teachers(runner).values():
            teacher.saved(Progress(runner.iter, runner.max_iters))

    def after_train(self, runner: Any) -> None:
        hub = runner.message_hub
        scores = {
            key.removeprefix('val/'): float(value.current())
            for key, value in hub.log_scalars.items()
            if key.startswith('val/')
        }
        for teacher in _teachers(runner).values():
            teacher.end(scores, hub.runtime_info.get('last_ckpt') or '')

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        states = {name: part.state_dict() for name, part in _parts(runner).items()}
        states = {name: state for name, state in states.items() if state}
        if states and 'optimizer' in checkpoint:  # a file without it is resumed by nobody
            checkpoint[KEY] = states

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Give teachers and the balance their state back.

        Raises:
            ValueError: the checkpoint is of a run with other teachers, or without the balance.
        """
        if not runner._resume:
            return
        self.resumed = True
        parts, states = _parts(runner), checkpoint.get(KEY) or {}
        wanted = [name for name, part in parts.items() if part.state_dict()]
        found = [name for name in states if isinstance(states[name], Mapping)]
        if set(wanted) != set(found):
            raise ValueError(
                'cannot resume: teachers with a state of their own are '
                f'{", ".join(found) or "none"} in the checkpoint and {", ".join(wanted) or "none"} '
                'in this run. Resume with the same teachers and balance, or take the weights '
                'alone: load_from without resume.'
            )
        for name in found:
            parts[name].load_state_dict(states[name])


def _teachers(runner: Any) -> dict[str, Any]:
    return getattr(unwrapped(runner.model), 'teachers', None) or {}


def _parts(runner: Any) -> dict[str, Any]:
    """Everything of a Distiller whose state is in no module: its teachers, and its balance."""
    balance = vars(unwrapped(runner.model)).get('balance')
    return _teachers(runner) | ({'balance': balance} if isinstance(balance, Balance) else {})
