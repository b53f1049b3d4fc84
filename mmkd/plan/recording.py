"""One batch through a Distiller without training, and the trace of each objective."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mmkd.checkpoint import read_checkpoint
from mmkd.schedule import Progress
from mmkd.tap import Trace
from mmkd.teacher import load_strictly
from mmkd.untouched import evaluation


def load_student(model: nn.Module, checkpoint: str) -> None:
    """Load the student strictly and, if the file has them, the parameters of objectives."""
    load_strictly(getattr(model, 'student', model), checkpoint, who='student')
    objectives = getattr(model, 'objectives', None)
    if objectives is None:
        return
    state = read_checkpoint(checkpoint).get('state_dict', {})
    prefix = 'objectives.'
    learnt = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
    shapes = {k: v.shape for k, v in objectives.state_dict().items()}
    objectives.load_state_dict(
        {k: v for k, v in learnt.items() if shapes.get(k) == v.shape}, strict=False
    )


@torch.no_grad()
def record(model: Any, inputs: torch.Tensor, samples: list) -> dict[str, Trace]:
    """The trace of one training step for each objective, without training anything."""
    names = {t for o in model.objectives.values() for t in model.plan.teacher_names(o)}
    frozen = {
        name: model.teachers[name](inputs, samples, model.pixels)
        for name in sorted(names & set(model.teachers))
    }
    with evaluation(model.student), model.recorder.record(inputs) as student:
        model.student(inputs, samples, mode='loss')
    living = {'student': (student, samples)}
    for name, peer in model.peers.items():
        with evaluation(peer):
            _, living[name] = model.peers.step(name, inputs, samples, model.pixels)
    return {name: model.trace(name, living, frozen, Progress()) for name in model.objectives}
