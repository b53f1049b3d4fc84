"""Singular vectors of feature maps, aligned between two networks, with finite gradients.

KDSVD and MHGD compare ``aligned_vectors``: Lee, Kim and Song, ECCV 2018, section 3.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmkd.functional.relations import at_least_float32, unit

#: eigenvalues closer than this share of the largest count as repeated
_GAP = 1e-4
#: singular values below this share of the largest activation count as 0
_ZERO = 1e-6


def aligned_vectors(
    student: Tensor, teacher: Tensor, count: int = 1, spare: int = 3
) -> tuple[Tensor, Tensor]:
    """The first right singular vectors of two maps, each student's the partner of a teacher's.

    A map (N, C, H, W) is an (H W, C) matrix of each image, so vectors live in channel space. Their
    sign is arbitrary: the teacher's are turned until their largest entry is positive. The partner
    is the student's vector of largest \\|cosine\\| among the first ``count + spare``, turned alike.
    Vectors of both sides are multiplied by the teacher's singular values, which are scaled to
    length 1.

    Args:
        student, teacher (Tensor): (N, C, H_s, W_s) and (N, C, H_t, W_t) of equal width; the teacher
            is detached.
        count (int): k, vectors of the teacher, at most min(C, H W).
        spare (int): additional vectors of the student that may be matched.

    Returns:
        tuple: student and teacher, (N, C, k) each.
    """
    wanted, values = right_singular_vectors(teacher.detach(), count)
    wanted = oriented(wanted)
    found, _ = right_singular_vectors(student, count + spare)
    partners = align(found, wanted)
    strength = unit(values)[:, None]
    return partners * strength, wanted * strength


def right_singular_vectors(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first right singular vectors of each image's (H W, C) matrix, and the singular values.

    They come from the smaller Gram matrix. The gradient is finite for repeated singular values:
    their vectors exchange none.

    Args:
        x (Tensor): (N, C, H, W).
        count (int): k; fewer where min(C, H W) is smaller.

    Returns:
        tuple: vectors (N, C, k), zero where the singular value is, and values (N, k), descending.
    """
    x = at_least_float32(x).flatten(2).transpose(1, 2)
    scale = x.detach().abs().amax((1, 2), keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
    x = x / scale
    places, channels = x.shape[1:]
    if channels <= places:
        vectors = _top_eigenvectors(x.transpose(1, 2) @ x, count)
    else:
        left = _top_eigenvectors(x @ x.transpose(1, 2), count)
        vectors = unit((x.transpose(1, 2) @ left).transpose(1, 2)).transpose(1, 2)
    values = (x @ vectors).norm(dim=1)
    return vectors * (values > _ZERO)[:, None], values * scale[:, 0]


def oriented(vectors: Tensor) -> Tensor:
    """(N, C, k) with the sign that makes the entry of largest magnitude positive."""
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    return torch.where(largest < 0, -vectors, vectors)


def align(candidates: Tensor, wanted: Tensor) -> Tensor:
    """For each wanted vector the candidate of largest \\|cosine\\|, turned to a positive one.

    Args:
        candidates (Tensor): (N, C, m).
        wanted (Tensor): (N, C, k).

    Returns:
        Tensor: (N, C, k).
    """
    cosine = (candidates.transpose(1, 2) @ wanted).detach()
    best = cosine.abs().argmax(1, keepdim=True)
    chosen = candidates.gather(2, best.expand(-1, candidates.shape[1], -1))
    return torch.where(cosine.gather(1, best) < 0, -chosen, chosen)


def _top_eigenvectors(gram: Tensor, count: int) -> Tensor:
    """Of (N, D, D), (N, D, k), the largest eigenvalue first."""
    return _Eigenvectors.apply(gram)[..., -count:].flip(-1)


class _Eigenvectors(torch.autograd.Function):
    """``eigh`` whose gradient divides by (gap + tolerance^2 / gap) instead of by the gap."""

    @staticmethod
    def forward(ctx: Any, gram: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(gram)
        ctx.save_for_backward(values, vectors)
        return vectors

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        values, vectors = ctx.saved_tensors
        gap = values[:, None] - values[..., None]
        tolerance = _GAP * values[:, -1:, None].abs()
        square = gap.square() + tolerance.square()
        inverse = gap / square.clamp(min=torch.finfo(gap.dtype).tiny)
        inner = inverse * (vectors.transpose(1, 2) @ grad)
        inner = (inner + inner.transpose(1, 2)) / 2
        return vectors @ inner @ vectors.transpose(1, 2)
