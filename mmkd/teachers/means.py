"""Means of class scores: of logits, of probabilities, over label spaces, with specialists."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmkd.names import no_file

#: iterations of :func:`specialist_mean`, at most
STEPS = 200


def mean_of(values: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """``sum_m w_m z_m``: of logits, the normalised geometric mean at every temperature.

    Args:
        values (Sequence[Tensor]): of M members, all of one shape.
        weights (Sequence[float]): w, of sum 1.
    """
    return torch.stack([w * z for w, z in zip(weights, values, strict=True)]).sum(0)


def check_shapes(owner: str, tap: Any, members: Mapping[str, Sequence[Tensor]]) -> None:
    """All members must show tensors of equal shapes at a tap.

    Raises:
        ValueError: which member differs from the first.
    """
    shapes = {name: [tuple(t.shape) for t in tensors] for name, tensors in members.items()}
    first = next(iter(shapes), '')
    for name, found in shapes.items():
        if found != shapes[first]:
            raise ValueError(
                f"{owner}: at '{tap}' member {first!r} shows {shapes[first]} and member {name!r} "
                f'{found}. A mean is of equal shapes: take members of one width there, or an '
                'objective for each, with teacher_name.'
            )


def probability_mean(logits: Sequence[Tensor], weights: Sequence[float], tau: float) -> Tensor:
    """``tau log sum_m w_m softmax(z_m / tau)``, whose softmax at tau is the mean of probabilities.

    Args:
        logits (Sequence[Tensor]): (N, K, …) of each member.
    """
    logs = [(z / tau).log_softmax(1) for z in logits]
    scale = torch.tensor(weights, dtype=logs[0].dtype, device=logs[0].device).log()
    scale = scale.view(-1, *[1] * logs[0].dim())
    return tau * (torch.stack(logs) + scale).logsumexp(0)


def union_mean(
    probabilities: Sequence[Tensor],
    columns: Sequence[Sequence[int]],
    weights: Sequence[float],
    size: int,
) -> Tensor:
    """Class probabilities of members that know other classes, (N, C, …).

    ``q_c = sum_m w_m p_mc / sum_m w_m`` over the members m that know class c, then divided by its
    sum over c: a member says nothing on what it does not know.

    Args:
        probabilities (Sequence[Tensor]): (N, K_m, …) of each member.
        columns (Sequence[Sequence[int]]): the class of the union for each of its columns.
        size (int): C, classes of the union, each known to a member of weight above 0.
    """
    first = probabilities[0]
    total = first.new_zeros(len(first), size, *first.shape[2:])
    known = first.new_zeros(size)
    for p, own, weight in zip(probabilities, columns, weights, strict=True):
        at = torch.tensor(own, device=first.device)
        total.index_add_(1, at, weight * p)
        known[at] += weight
    q = total / known.view(-1, *[1] * (first.dim() - 2))
    return q / q.sum(1, keepdim=True)


def specialist_mean(
    general: Tensor,
    special: Sequence[Tensor],
    subsets: Sequence[Sequence[int]],
    active: Tensor,
) -> Tensor:
    """Minimum q of ``KL(p_g || q) + sum_m KL(p_m || q)``, where q sums its classes outside of S_m.

    Hinton et al. 2015, section 5.3. The objective is that of a mixture's likelihood, so it is
    solved by expectation-maximisation from q = p_g: each step divides the dustbin of m over its
    classes as q does, and takes the mean. With one specialist the first step is the solution.

    Args:
        general (Tensor): p_g, (N, C).
        special (Sequence[Tensor]): p_m of each of M specialists, (N, |S_m| + 1), dustbin last.
        subsets (Sequence[Sequence[int]]): S_m, the classes of its columns.
        active (Tensor): (N, M) bool, whom an image asks; nobody: q = p_g.

    Returns:
        Tensor: (N, C).
    """
    inside = general.new_zeros(len(subsets), general.shape[1])
    fixed = torch.zeros_like(general)
    for m, (p, subset) in enumerate(zip(special, subsets, strict=True)):
        at = torch.tensor(subset, device=general.device)
        inside[m, at] = 1
        fixed.index_add_(1, at, p[:, :-1] * active[:, m, None])
    dustbin = torch.stack([p[:, -1] for p in special], 1) * active
    asked = 1 + active.sum(1, keepdim=True)
    q = general
    if not len(general):
        return q
    for _ in range(STEPS):
        outside = q[:, None] * (1 - inside)  # (N, M, C)
        share = outside / outside.sum(2, keepdim=True).clamp(min=1e-12)
        new = (general + fixed + (dustbin[..., None] * share).sum(1)) / asked
        change = (new - q).abs().amax()
        q = new
        if bool(change <= torch.finfo(q.dtype).eps):
            break
    return q


def with_oversampling(logits: Tensor, factor: float) -> Tensor:
    """Logits (N, K) whose last column, the dustbin, gets ``+ log(factor)``.

    A specialist sees ``factor`` times as many images of its own classes, in proportion to the
    others, as there are.
    """
    shift = torch.zeros_like(logits)
    shift[:, -1] = torch.tensor(float(factor)).log()
    return logits + shift


def read_weights(weights: Any, members: list[str]) -> dict[str, float]:
    """Weights of sum 1 by member; see :class:`~mmkd.teachers.ensemble.Ensemble`.

    Raises:
        ValueError: other names; a weight below 0 or not finite; all of them 0.
        FileNotFoundError: no such file.
    """
    if weights is None:
        return dict.fromkeys(members, 1 / len(members))
    if isinstance(weights, str):
        if not Path(weights).is_file():
            raise FileNotFoundError(f'Ensemble: weights: {no_file(weights, ".json")}')
        try:
            weights = json.loads(Path(weights).read_text())
        except ValueError as error:
            raise ValueError(f'Ensemble: weights={weights!r} is no JSON file ({error}).') from None
    if not isinstance(weights, Mapping) or set(weights) != set(members):
        raise ValueError(
            f'Ensemble: weights must be a number for each of {", ".join(members)}, found '
            f'{weights!r}.'
        )
    numbers = {name: weights[name] for name in members}
    good = all(
        isinstance(w, (int, float)) and not isinstance(w, bool) and isfinite(w) and w >= 0
        for w in numbers.values()
    )
    if not good or not any(numbers.values()):
        raise ValueError(
            f'Ensemble: weights must be finite, at least 0 and not all 0, found {numbers!r}.'
        )
    total = sum(numbers.values())
    return {name: w / total for name, w in numbers.items()}
