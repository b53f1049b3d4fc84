"""Checks before the first step, when the whole run is built."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator
from logging import WARNING
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from torch import nn

from mmkd.borrowed import unwrapped
from mmkd.checks.guard import has_ground_truth
from mmkd.checks.labels import check_labels, check_tested
from mmkd.checks.metrics import check_best, check_metrics
from mmkd.checks.peers import check_peers, same_weights
from mmkd.checks.pipelines import check_pipelines
from mmkd.checks.unmoved import Reached
from mmkd.generated import check_images
from mmkd.own_optimizers import key_of, updated
from mmkd.registry import HOOKS
from mmkd.schedule import Progress, Schedule
from mmkd.trains import player_of
from mmkd.unlabelled import check_listeners, check_mixture
from mmkd.untouched import untouched_random_state


@HOOKS.register_module()
class PreflightHook(Hook):
    """Print the plan, check that the optimiser is complete, and score the teacher with ``score``.

    ``model.preflight=dict(score=N)`` evaluates every teacher on the first N validation samples with
    the run's own metric.

    Raises:
        RuntimeError: a parameter of an objective that no optimiser updates, or the wrong one; a
            teacher that changed after it was loaded; a part of the model without a gradient in the
            first step.
        ValueError: factors of the student's own losses that a method's equation does not have.
    """

    priority = 'LOW'
    reached: Reached | None = None

    def __init__(self) -> None:
        #: metrics of each teacher that was scored
        self.scores: dict[str, dict[str, float]] = {}

    def before_train(self, runner: Any) -> None:
        model = unwrapped(runner.model)
        check_labels(runner, model)
        check_metrics(runner.val_loop, model)
        check_best(runner.val_loop, getattr(runner, 'hooks', ()))
        loaders = [runner.train_dataloader, *([runner.val_dataloader] if runner.val_loop else [])]
        check_pipelines(*(loader.dataset for loader in loaders))
        if not hasattr(model, 'plan'):
            return
        runner.logger.info(f'plan\n{model.plan}')
        check_optimised(model.objectives, runner.optim_wrapper)
        check_baseline(model)
        check_peers(model, runner.optim_wrapper, starts=runner.iter == 0)
        check_validated(model, runner)
        tasks = model.task_weight is not None and 'student' in model.trains
        check_mixture(runner.train_dataloader)
        check_images(model.objectives, runner.train_dataloader.dataset)
        check_listeners(model.objectives, runner.train_dataloader.dataset, tasks)
        for name, objective in model.objectives.items():
            check_schedule(name, objective.weight, runner.max_iters)
            check_numbers(name, objective, runner.max_iters)
            if runner.iter == 0:  # a resumed student has it, and may have trained it
                model.plan.inherit(objective)
            objective.check_dataset(runner.train_dataloader.dataset)
            if not objective.weight.is_zero:
                factor = 0.0 if model.task_weight is None else model.task_weight
                objective.check_task_weight(factor)
            check_learner(name, objective, model.trains)
            check_company(name, model.objectives)
        for name, teacher in model.teachers.items():
            used = [o for o in model.objectives.values() if name in model.plan.teacher_names(o)]
            unused = all(objective.weight.is_zero for objective in used)
            if runner.iter == 0 and 'student' in model.trains and not unused:
                for part in teacher.parts().values():
                    if not part.of_student:
                        check_start(name, model.student, part.model)
            for which, part in teacher.parts().items():
                self._check_part(runner, f'{name}{which}', part, model.guard.score)

        self.reached = Reached(model) if model.guard.steps else None

    def _check_part(self, runner: Any, name: str, part: Any, count: int) -> None:
        """One network of a teacher: it is frozen; its score on some validation samples."""
        if any(p.requires_grad for p in part.model.parameters()) or part.model.training:
            raise RuntimeError(f"teacher '{name}' is no longer frozen; nothing may train it.")
        if count and not part.of_student and hasattr(part.model, 'val_step'):
            self.scores[name] = score_teacher(runner, part, count)
            runner.logger.info(f"teacher '{name}' on {count} val samples: {self.scores[name]}")

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if self.reached is not None:
            samples = data_batch.get('data_samples', []) if isinstance(data_batch, dict) else []
            reached, self.reached = self.reached, None
            reached.finish(has_ground_truth(samples), unwrapped(runner.model).resting())

    def before_test(self, runner: Any) -> None:
        model = unwrapped(runner.model)
        check_tested(runner, model)
        check_metrics(runner.test_loop, model)
        check_pipelines(runner.test_dataloader.dataset)


def check_optimised(objectives: nn.ModuleDict, optim_wrapper: Any) -> None:
    """Parameters of objectives must be in a parameter group, of their own optimiser if any.

    Raises:
        RuntimeError: it is in none, or in another one.
    """
    known = updated(optim_wrapper)
    for name, objective in objectives.items():
        learnt = {id(p) for p in objective.parameters() if p.requires_grad}
        elsewhere = [key for key, ids in known.items() if ids & learnt and key != key_of(name)]
        if objective.optimizer and elsewhere:
            raise RuntimeError(
                f"objective '{name}' learns with an optimiser of its own, but another one has its "
                'parameters. mmkd.Runner builds both, from an optim_wrapper that is a mapping: '
                'name no other runner_type, and no optimiser that is built already.'
            )
    trained = set().union(*known.values())
    lost = [n for n, p in objectives.named_parameters() if p.requires_grad and id(p) not in trained]
    if lost:
        raise RuntimeError(
            f'no optimiser updates {", ".join(lost)}. Does optim_wrapper use a constructor that '
            'picks parameters by name? Let it include objectives.*'
        )


def check_baseline(model: Any) -> None:
    """Say where nothing is distilled, and where weights of 0 do not make plain training."""
    if not model.objectives:
        _warn('model.objectives is empty: this run trains the student without distillation')
    used = {name for o in model.objectives.values() for name in model.plan.teacher_names(o)}
    for name in model.teachers:
        if name not in used and model.objectives:
            _warn(f"teacher '{name}' is loaded, but no objective uses it")
    unweighted = all(objective.weight.is_zero for objective in model.objectives.values())
    factors = model.task_weight if isinstance(model.task_weight, dict) else {'': model.task_weight}
    if unweighted and any(factor != 1 for factor in factors.values()):
        which = 'every objective has the weight 0' if model.objectives else 'nothing is distilled'
        _warn(
            f'{which}, but task_weight={model.task_weight} still scales '
            "the student's own losses: this is not plain training. Set task_weight=1 for that"
        )


def check_validated(model: Any, runner: Any) -> None:
    """Say where validation cannot show anything, because the student does not train."""
    if 'student' not in model.trains and runner.val_loop is not None:
        _warn(
            f'the student does not train in this run (trains: {model.trains}), so every validation '
            'gives the score with which it started; train_cfg.val_interval can leave them out'
        )


def check_learner(name: str, objective: Any, trains: Any) -> None:
    """Warn if nobody who trains learns from an objective."""
    own = 'objectives' in trains and any(p.requires_grad for p in objective.parameters())
    if objective.weight.is_zero or own or player_of(objective.learner) in trains:
        return
    _warn(
        f"objective '{name}' has no effect: it teaches '{objective.learner}', which does not train "
        f'in this run (trains: {trains})'
    )


def check_company(name: str, objectives: Any) -> None:
    """Warn if a critic is all that a network learns from its teachers."""
    objective = objectives[name]
    counted = [o for o in objectives.values() if not o.weight.is_zero]
    own = [o for o in counted if o.learner == objective.learner and o.needs_teacher]
    if objective in own and all(o.adversarial for o in own):
        _warn(
            f"objective '{name}' is adversarial alone: a critic compares the two networks as "
            'distributions, which does not say which image an answer belongs to. Add an objective '
            'that compares image by image, such as KD, SKDPixel or FitNet'
        )


def check_start(name: str, student: nn.Module, teacher: nn.Module) -> None:
    """Warn if the student starts with all the weights of its teacher."""
    if same_weights(student, teacher):
        _warn(
            f"the student starts with the same weights as teacher '{name}', so there is nothing to "
            "learn from it at first. Is load_from, or init_cfg, the teacher's checkpoint?"
        )


def check_schedule(name: str, weight: Schedule, total: int) -> None:
    """Warn if the weight of an objective is 0 in all iterations of a run, unless it is always 0."""
    if not weight.is_zero and not weight.counts(total, Progress.current().accumulated):
        _warn(
            f"objective '{name}' has no effect: this run has {total} iterations, and its weight is "
            f'{weight}'
        )


def check_numbers(name: str, objective: Any, total: int) -> None:
    """Warn if a number that has a schedule keeps its first value in all iterations of a run."""
    for option, schedule in objective.schedules.items():
        if not schedule.moves(total):
            _warn(
                f"objective '{name}': {option} has a schedule, {schedule}, but in the {total} "
                f'iterations of this run it stays {schedule.value:g}'
            )


def _warn(message: str) -> None:
    print_log(message, logger='current', level=WARNING)


@torch.no_grad()
def score_teacher(runner: Any, teacher: Any, count: int) -> dict[str, float]:
    """The run's own validation metric of ``teacher`` on the first ``count`` samples.

    Raises:
        ValueError: the run has no validation.
    """
    if runner.val_loop is None:
        raise ValueError('preflight=dict(score=N) needs val_dataloader and val_evaluator.')
    dataset = runner.val_dataloader.dataset
    evaluator = copy.deepcopy(runner.val_evaluator)
    evaluator.dataset_meta = getattr(dataset, 'metainfo', None)
    count = min(count, len(dataset))
    collate = runner.val_dataloader.collate_fn
    rank, world = get_rank(), get_world_size()
    with untouched_random_state(), full_precision(teacher):
        # As a sampler would: each rank takes every world-th sample, and all take equally many.
        for index in range(rank, math.ceil(count / world) * world, world):
            batch = collate([dataset[index % count]])
            outputs = teacher.model.val_step(batch)
            evaluator.process(data_samples=outputs, data_batch=batch)
        restrict(evaluator, dataset, count)
        metrics = evaluator.evaluate(count)
    return {
        k: round(float(v), 4) for k, v in metrics.items() if isinstance(v, (int, float, np.number))
    }


@contextlib.contextmanager
def full_precision(teacher: Any) -> Iterator[None]:
    """float32 for a while: prediction has operators, such as RoIAlign, without bf16."""
    teacher.model.float()
    try:
        yield
    finally:
        teacher.model.to(dtype=teacher.dtype)


def restrict(evaluator: Any, dataset: Any, count: int) -> None:
    """COCO's metric counts images without predictions as missed: limit it to those evaluated."""
    for metric in evaluator.metrics:
        if hasattr(metric, 'img_ids'):
            metric.img_ids = [dataset.get_data_info(i).get('img_id') for i in range(count)]
