"""Images at the end of a batch that one objective has for itself, as CS-KD its partners."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmkd.plan.probe import run_to_taps
from mmkd.schedule import Progress
from mmkd.tap import Trace
from mmkd.untouched import buffers_kept

Batch = tuple[Tensor, list]


def hold_back(
    objectives: Mapping[str, Any], active: Sequence[str], inputs: Tensor, samples: Any
) -> tuple[Tensor, Any, dict[str, Batch]]:
    """The batch (N, 3, H, W) without the images that an active objective has for itself.

    Returns:
        tuple: images and data samples of all others, and those held back by the objective's name.

    Raises:
        ValueError: several objectives hold images back.
    """
    counts = {name: objectives[name].held_back(samples or []) for name in active}
    counts = {name: count for name, count in counts.items() if count}
    if not counts:
        return inputs, samples, {}
    if len(counts) > 1:
        raise ValueError(
            f'objectives {", ".join(counts)} each take images at the end of the batch for '
            'themselves; one at most can.'
        )
    ((name, count),) = counts.items()
    return inputs[:-count], samples[:-count], {name: (inputs[-count:], samples[-count:])}


def look_at_held(distiller: Any, held: Mapping[str, Batch], progress: Progress) -> dict[str, Trace]:
    """What the student shows of images that were held back: no gradients, its present mode."""
    student, traces = distiller.student, {}
    for name, (inputs, samples) in held.items():
        objective = distiller.objectives[name]
        moves = objective.moves_statistics
        still = contextlib.nullcontext() if moves else buffers_kept(student)
        with torch.no_grad(), still, distiller.recorder.record(inputs) as side:
            run_to_taps(student, objective.student_taps, inputs, samples)
        traces[name] = Trace(inputs, samples, side, {}, progress)
    return traces
