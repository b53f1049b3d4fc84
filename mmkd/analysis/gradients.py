"""Gradient norm of each term relative to the task's, and the angle between the two."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor

from mmkd.checks.finite import task_losses
from mmkd.checks.guard import Guard, own_losses
from mmkd.config import distils
from mmkd.distiller import Distiller
from mmkd.engine.runner import Runner
from mmkd.functional.gradients import gradients_at
from mmkd.plan.recording import load_student
from mmkd.registry import MODELS
from mmkd.schedule import Schedule


@dataclass
class TermGradient:
    """One term, with a number per batch: value, ``|g| / |g_task|``, ``cos(g, g_task)``."""

    values: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    cosines: list[float] = field(default_factory=list)


def measure_gradients(
    config: Config, checkpoint: str | None = None, batches: int = 8, seed: int = 0
) -> dict[str, TermGradient]:
    """Compare the gradient of each term with that of the student's own losses, on real batches.

    Gradients are those of the weighted losses with regard to the learner's parameters that its
    task trains; a parameter that a term does not reach counts as zero. Schedules are taken at
    their full value. Nothing is updated but BatchNorm statistics of the copy in memory.

    Args:
        config (Config): of a distillation run, with its data and its teacher.
        checkpoint (str | None): student weights, and what objectives learned, if it has them;
            without, the student is untrained.
        batches (int): training batches, of the config's batch size.
        seed (int): of weights and data.

    Raises:
        ValueError: no distillation config, or no batch.
    """
    if not distils(config.model):
        raise ValueError('gradients needs a distillation config (model.type mmkd.Distiller).')
    if batches < 1:
        raise ValueError(f'gradients needs at least one batch, found batches={batches}.')
    model = distiller_of(config, checkpoint, seed)
    loader = Runner.build_dataloader(config.train_dataloader, seed=seed)
    terms: dict[str, TermGradient] = {}
    for data in islice(cycle(loader), batches):
        for key, value, ratio, cosine in compare(model, model.data_preprocessor(data, True)):
            term = terms.setdefault(key, TermGradient())
            term.values.append(value)
            term.ratios.append(ratio)
            term.cosines.append(cosine)
    return terms


def distiller_of(config: Config, checkpoint: str | None, seed: int) -> Distiller:
    """The Distiller of a config as training would have it, schedules at their full value."""
    init_default_scope(config.get('default_scope') or 'mmengine')
    torch.manual_seed(seed)
    model = MODELS.build(config.model)
    if checkpoint:
        load_student(model, checkpoint)
    else:
        model.init_weights()
    if torch.cuda.is_available():
        model.cuda()
    return at_full_value(model.train())


def at_full_value(model: Distiller) -> Distiller:
    """Let schedules of weights be at their full value, and leave the checks of the step out."""
    model.guard = Guard.of(False)
    for objective in model.objectives.values():
        objective.weight = Schedule(objective.weight.value)
    return model


def compare(model: Distiller, data: dict) -> Iterator[tuple[str, float, float, float]]:
    """(key, value, ratio, cosine) of each term for the student, of one preprocessed batch."""
    losses = model(**data, mode='loss')
    own = {f'kd.{name}.{key}' for name, o in model.objectives.items() for key in o.own_losses}
    terms = {
        k: v for k, v in losses.items() if k.startswith('kd.') and '.loss' in k and k not in own
    }
    task = {k: v for k, v in losses.items() if not k.startswith('kd.')}
    known, wanted = {}, {}
    for who in {objective.learner for objective in model.objectives.values()}:
        total = sum(value.sum() for _, value in task_losses(own_losses(task, who)))
        known[who] = [p for p in model.plan.network(who).parameters() if p.requires_grad]
        wanted[who] = _gradient(total, known[who])
    for key, term in terms.items():
        who = model.objectives[key.split('.')[1]].learner
        found, task_gradient = _gradient(term, known[who]), wanted[who]
        norm, norm_task = found.norm(), task_gradient.norm()
        cosine = torch.dot(found, task_gradient) / (norm * norm_task).clamp(min=1e-20)
        yield key, float(term.detach()), float(norm / norm_task.clamp(min=1e-20)), float(cosine)


def _gradient(loss: Any, parameters: list[Tensor]) -> Tensor:
    """One long vector, zero where the loss does not reach."""
    if not isinstance(loss, Tensor) or not loss.requires_grad:
        return torch.zeros(sum(p.numel() for p in parameters))
    pairs = zip(gradients_at(loss, parameters), parameters, strict=True)
    return torch.cat([(p.new_zeros(p.shape) if g is None else g).flatten() for g, p in pairs])


def report(terms: Mapping[str, TermGradient]) -> str:
    """A markdown table: mean value, median ratio and its range, mean cosine."""
    lines = ['| term | value | gradient / task (range) | cosine |', '|---|---|---|---|']
    for key, term in terms.items():
        low, middle, high = min(term.ratios), statistics.median(term.ratios), max(term.ratios)
        value, cosine = statistics.mean(term.values), statistics.mean(term.cosines)
        lines.append(
            f'| {key} | {value:.4g} | {middle:#.3g} ({low:#.3g} to {high:#.3g}) | {cosine:+.2f} |'
        )
    return '\n'.join(lines)
