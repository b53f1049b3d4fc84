"""Gradients of a score with respect to the pixels, of student and teacher."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mmkd.tap import Tap, Trace


def input_gradients(
    trace: Trace, tap: Tap, score: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Gradients of ``score(logits)`` with regard to each network's own normalised pixels.

    The student's has a graph of its own, so that a loss of it can be minimised; the teacher is run
    once more for its own, without gradients of its weights.

    Args:
        trace (Trace): of an objective that declares ``needs_input_gradient``.
        tap (Tap): the student's logits (N, K).
        score (callable): logits (N, K) -> (N,), independent between images.

    Returns:
        tuple: (N, 3, H, W) each; the teacher's detached.
    """
    own = score(trace.student[tap][0]).sum()
    (student,) = torch.autograd.grad(own, trace.inputs, create_graph=True)
    pixels = trace.teacher.inputs.detach().clone().requires_grad_()
    with torch.enable_grad():
        dtype = next(trace.teacher.model.parameters()).dtype
        logits = trace.teacher.model(pixels.to(dtype), mode='tensor').float()
        (teacher,) = torch.autograd.grad(score(logits).sum(), pixels)
    return student, teacher
