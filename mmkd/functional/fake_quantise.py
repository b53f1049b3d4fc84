"""Weights rounded to few values, as integers of few bits would store them."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mmkd.functional.quantise import straight_through

AXES = ('channel', 'tensor', 'flat:N')
FORMS = ('symmetric', 'asymmetric', 'wrpn')
#: forms with numbers that are learned
LEARNED_FORMS = ('lsq', 'points')


def bucket_of(axis: Any) -> int | None:
    """N of ``axis='flat:N'``, 0 for ``'channel'`` and ``'tensor'``, None for anything else."""
    if axis in ('channel', 'tensor'):
        return 0
    match = re.fullmatch(r'flat:(\d+)', axis) if isinstance(axis, str) else None
    return int(match[1]) or None if match else None


def to_rows(weight: Tensor, axis: str) -> Tensor:
    """The numbers (R, n) that share a range each.

    ``'channel'``: those of an output channel; ``'tensor'``: all; ``'flat:N'``: N that follow each
    other in memory order (out, in, height, width), the last piece filled up with its last value.
    """
    if axis == 'channel':
        return weight.reshape(len(weight), -1)
    if axis == 'tensor':
        return weight.reshape(1, -1)
    size = bucket_of(axis) or 1
    flat = weight.reshape(1, -1)
    spare = -flat.shape[1] % size
    return (
        F.pad(flat, (0, spare), mode='replicate').view(-1, size) if spare else flat.view(-1, size)
    )


def from_rows(rows: Tensor, like: Tensor) -> Tensor:
    """Undo of :func:`to_rows`, in the shape of the weight ``like``."""
    return rows.reshape(-1)[: like.numel()].view_as(like)


def asymmetric(rows: Tensor, bits: int, noise: Tensor | None = None) -> Tensor:
    """``round((w - b) / a * s) / s * a + b``, b the smallest of a row, a its range, s = 2^bits - 1.

    Polino et al., ICLR 2018. Smallest and largest of a row stay as they are, also in the last bit,
    so that a second call changes nothing; so does a row of equal numbers.

    Args:
        rows (Tensor): (R, n).
        noise (Tensor | None): (R, n), in [0, 1): rounds up with the probability of the rest.
    """
    low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
    size, steps = high - low, rows.new_full((), 2**bits - 1)
    number = _rounded((rows - low) / torch.where(size > 0, size, 1) * steps, noise)
    share = number.clamp(min=0).minimum(steps) / steps
    found = torch.where(share < 0.5, low + size * share, high - size * (1 - share))
    return torch.where(size > 0, found, rows)


def symmetric(rows: Tensor, bits: int, noise: Tensor | None = None) -> Tensor:
    """``round(w / m * n) / n * m``, m the largest absolute value of a row, n = 2^(bits - 1) - 1.

    Zero is among the values, as integers of a runtime want it. Arguments as :func:`asymmetric`.
    """
    most, steps = rows.abs().amax(1, keepdim=True), rows.new_full((), 2 ** (bits - 1) - 1)
    number = _rounded(rows / torch.where(most > 0, most, 1) * steps, noise)
    return number.maximum(-steps).minimum(steps) / steps * most


def wrpn(rows: Tensor, bits: int, noise: Tensor | None = None) -> Tensor:
    """``round(n * clip(w, -1, 1)) / n``, n = 2^(bits - 1) - 1: no range is looked for.

    Mishra et al., ICLR 2018 (WRPN); at 2 bits -1, 0 and 1. Arguments as :func:`asymmetric`.
    """
    steps = rows.new_full((), 2 ** (bits - 1) - 1)
    return _rounded(rows.clamp(-1, 1) * steps, noise).maximum(-steps).minimum(steps) / steps


def _rounded(x: Tensor, noise: Tensor | None) -> Tensor:
    """To the nearest whole number, half to even; or up with the probability of the rest."""
    return x.round() if noise is None else (x + noise).floor()


_FORMS = dict(asymmetric=asymmetric, symmetric=symmetric, wrpn=wrpn)


def fake_quantise(
    weight: Tensor, bits: int, axis: str, form: str, stochastic: bool = False
) -> Tensor:
    """A weight with values of few bits, and the gradient of the identity.

    Args:
        weight (Tensor): (out, …).
        axis (str): see :func:`to_rows`.
        form (str): ``'symmetric'``, ``'asymmetric'`` or ``'wrpn'``, whose gradient is 0 outside
            [-1, 1].
        stochastic (bool): round stochastically, with torch's own random stream.
    """
    with torch.no_grad():
        rows = to_rows(weight, axis)
        noise = torch.rand_like(rows) if stochastic else None
        value = from_rows(_FORMS[form](rows, bits, noise), weight)
    return straight_through(weight.clamp(-1, 1) if form == 'wrpn' else weight, value)


class _LearnedStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, step: Tensor, bits: int) -> Tensor:
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        number = rows / step
        ctx.save_for_backward(number, step)
        ctx.ends, ctx.factor = (low, high), (rows.numel() * high) ** -0.5
        return number.round().clamp(low, high) * step

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple:  # type: ignore[override]
        number, step = ctx.saved_tensors
        low, high = ctx.ends
        inside = (number > low) & (number < high)
        of_step = torch.where(inside, number.round() - number, number.clamp(low, high))
        return gradient * inside, (gradient * of_step).sum_to_size(step.shape) * ctx.factor, None


def learned_step(rows: Tensor, step: Tensor, bits: int) -> Tensor:
    """``clip(round(w / s), -Qn, Qp) * s``, with the gradients of LSQ (Esser et al., ICLR 2020).

    Qn = 2^(bits - 1), Qp = Qn - 1. That of s is -Qn, round(w / s) - w / s or Qp for each weight,
    times ``1 / sqrt(N Qp)``, N the numbers of the whole weight.

    Args:
        rows (Tensor): (R, n).
        step (Tensor): s, (R, 1) or (1, 1), above 0.
    """
    return _LearnedStep.apply(rows, step, bits)


def first_step(rows: Tensor, bits: int) -> Tensor:
    """``2 * mean|w| / sqrt(Qp)``, with which LSQ begins: (R, 1)."""
    return 2 * rows.abs().mean(1, keepdim=True) / (2 ** (bits - 1) - 1) ** 0.5


def nearest_point(rows: Tensor, low: Tensor, size: Tensor, points: Tensor) -> Tensor:
    """``low + size * p_j``, p_j the point that is nearest to ``(w - low) / size``.

    The gradient of a point is the sum over its weights of gradient times size, as in Polino et
    al., ICLR 2018, section 4; weights get none.

    Args:
        rows (Tensor): (R, n).
        low, size (Tensor): (R, 1).
        points (Tensor): (2^bits,), in any order.
    """
    order = points.detach().sort()
    borders = (order.values[1:] + order.values[:-1]) / 2
    share = (rows.detach() - low) / torch.where(size > 0, size, 1)
    chosen = order.indices[torch.bucketize(share.contiguous(), borders)]
    return low + size * points[chosen]


class _Clipped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, most: Tensor, bits: int) -> Tensor:
        ctx.save_for_backward(x, most)
        wide, top = _widened(x, most)
        steps = wide.new_full((), 2**bits - 1)
        return ((wide.clamp(min=0).minimum(top) / top * steps).round() / steps * top).to(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple:  # type: ignore[override]
        x, most = ctx.saved_tensors
        wide, top = _widened(x, most)
        over = wide >= top
        inside = (x > 0) & ~over
        of_most = (gradient.to(wide) * over).sum_to_size(most.shape).to(most)
        return gradient * inside, of_most, None


def _widened(x: Tensor, most: Tensor) -> list[Tensor]:
    """Both in float32 at least: float16 has no 65535, and no room for sums over maps."""
    kind = torch.promote_types(torch.promote_types(x.dtype, most.dtype), torch.float32)
    return [x.to(kind), most.to(kind)]


def clipped(x: Tensor, most: Tensor, bits: int) -> Tensor:
    """``round(clip(x, 0, a) * n / a) * a / n``, n = 2^bits - 1, with the gradients of PACT.

    Choi et al., 2018: 1 for x in (0, a), and 1 for a where x is at least a. With a = 1 it is the
    rounding of activations in WRPN.

    Args:
        x (Tensor): any shape; the result has its precision.
        most (Tensor): a, one number.
    """
    return _Clipped.apply(x, most, bits)
