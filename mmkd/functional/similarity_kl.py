"""KL divergence between softmaxed similarities of two networks, which are never all held."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

#: similarities held at a time, for each network; a quarter on a CPU, whose cache they then fit
AT_ONCE = 2**22


def similarity_kl(
    queries: tuple[Tensor, Tensor], keys: tuple[Tensor, Tensor], tau: float
) -> Tensor:
    """Sum over rows and groups of ``KL(softmax_m(q_t . k_t / tau) || softmax_m(q_s . k_s / tau))``.

    The gradient of a part of the rows is computed together with its value, so that no product is
    computed twice and memory does not grow with their number.

    Args:
        queries (tuple[Tensor, Tensor]): rows of student and teacher, (R, C_s) and (R, C_t).
        keys (tuple[Tensor, Tensor]): of both, (G, m, C_s) and (G, m, C_t); the softmax is over
            those of one group.
        tau (float): temperature.
    """
    (q_s, q_t), (k_s, k_t) = queries, keys
    return _SimilarityKL.apply(q_s, k_s, q_t.detach(), k_t.detach(), tau)


class _SimilarityKL(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_s: Tensor, k_s: Tensor, q_t: Tensor, k_t: Tensor, tau: float) -> Tensor:
        groups, own, flat = len(k_s), k_s.flatten(0, 1), k_t.flatten(0, 1)
        grad_q = torch.empty_like(q_s) if ctx.needs_input_grad[0] else None
        grad_k = torch.zeros_like(own) if ctx.needs_input_grad[1] else None
        total = q_s.new_zeros(())
        at_once = AT_ONCE // 4 if q_s.device.type == 'cpu' else AT_ONCE
        rows = max(at_once // max(len(own), 1), 1)
        for start in range(0, len(q_s), rows):
            part = slice(start, start + rows)
            log_s = _log_softmax(q_s[part] @ own.T, groups, tau)
            log_t = _log_softmax(q_t[part] @ flat.T, groups, tau)
            p_t = log_t.exp()
            log_t -= log_s
            gap = log_s.exp_().sub_(p_t).flatten(1)  # times tau, d total / d similarity
            total += p_t.mul_(log_t).sum()
            if grad_q is not None:
                torch.mm(gap, own, out=grad_q[part])
            if grad_k is not None:
                grad_k.addmm_(gap.T, q_s[part])
        ctx.tau, ctx.shape = tau, k_s.shape
        ctx.save_for_backward(grad_q, grad_k)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        grad_q, grad_k = ctx.saved_tensors
        scale = gradient / ctx.tau
        return (
            None if grad_q is None else grad_q * scale,
            None if grad_k is None else (grad_k * scale).view(ctx.shape),
            None,
            None,
            None,
        )


def _log_softmax(similarity: Tensor, groups: int, tau: float) -> Tensor:
    """(r, G * m) -> (r, G, m), in place where that is possible."""
    return similarity.div_(tau).unflatten(1, (groups, -1)).log_softmax(-1)
