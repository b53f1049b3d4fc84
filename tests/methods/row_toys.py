"""Rows, one for each image, for the losses on relations between the images of a batch."""

import torch
from torch import Tensor

from mmkd.objective import Objective
from mmkd.testing import class_labels, make_trace, ready

A = torch.tensor([[1, 0], [1, 1], [0, 2]], dtype=torch.float64)
B = torch.tensor([[2, 0], [0, 1], [1, 1]], dtype=torch.float64)
LABELS = torch.tensor([0, 1, 0, 1, 0])


def random_rows(
    seed: int = 0, b: int = 5, widths: tuple = (3, 4), dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    """``b`` rows of each width, between 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(b, d, generator=generator, dtype=torch.float64).to(dtype) for d in widths]


def on_rows(
    objective: Objective,
    student: Tensor,
    teacher: Tensor,
    labels: Tensor | None = None,
    **options: object,
) -> Tensor:
    """The objective's total on what tap 'x' shows, in whatever precision that is."""
    samples = None if labels is None else class_labels(labels)
    trace = make_trace({'x': student}, {'x': teacher}, samples=samples, **options)
    ready(objective, trace)
    found = objective(trace)
    return sum(v for k, v in found.items() if k.startswith('loss'))


def value(objective: Objective, *rows: Tensor, **options: object) -> float:
    """That total as a number; of random rows, where none are given."""
    return float(on_rows(objective, *(rows or random_rows()), **options))


def two_layers() -> tuple[list[Tensor], list[Tensor]]:
    """Rows of student and teacher at a first and at a second layer."""
    return random_rows(0), random_rows(1)


def on_two_layers(objective: Objective) -> dict[str, float]:
    """All the objective says of ``two_layers``, at taps 'a' and 'b'."""
    sides = [dict(zip('ab', x, strict=True)) for x in zip(*two_layers(), strict=True)]
    trace = make_trace(*sides)
    return {k: float(v) for k, v in ready(objective, trace)(trace).items()}


def slow_probabilities(x: Tensor, kernel: object) -> list[list[float]]:
    """A kernel of all pairs of rows by loops, each row divided by its sum."""
    table = [[kernel(a, b) for b in x] for a in x]
    return [[value / sum(row) for value in row] for row in table]


def cosine(u: Tensor, v: Tensor) -> float:
    """From 0 to 1."""
    return float(u @ v / (u.norm() * v.norm()) + 1) / 2
