"""Blocks with global context (GcBlock, non-local block), for training only."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ContextBlock(nn.Module):
    """Global context added to each channel, (N, C, H, W) -> (N, C); 0 at initialisation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 2, 1)
        self.where = nn.Conv2d(channels, 1, 1)
        self.transform = nn.Sequential(
            nn.Linear(channels, hidden),
            nn.LayerNorm(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, channels),
        )
        nn.init.kaiming_normal_(self.where.weight)
        nn.init.zeros_(self.where.bias)
        nn.init.zeros_(self.transform[-1].weight)
        nn.init.zeros_(self.transform[-1].bias)

    def forward(self, x: Tensor) -> Tensor:
        places = self.where(x).flatten(2).softmax(-1)
        return self.transform(torch.bmm(x.flatten(2), places.transpose(1, 2))[..., 0])


class NonLocal(nn.Module):
    """Non-local block with residual, (N, C, H, W) -> same; the identity at initialisation.

    ``x + BN(W y)`` with ``y_i = sum_m (theta_i . phi_m) g_m / M`` over M pooled places m. There is
    no softmax in between, so the sum over m comes first and no H * W x M affinity is ever made.
    """

    def __init__(self, channels: int, hidden: int, pool: int) -> None:
        super().__init__()
        self.pool = pool
        self.project = nn.Conv2d(channels, 3 * hidden, 1)
        self.out = nn.Conv2d(hidden, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        theta, phi, g = self.project(x).chunk(3, 1)
        pool = [min(self.pool, side) for side in x.shape[2:]]
        phi, g = (F.max_pool2d(y, pool).flatten(2) for y in (phi, g))
        mixed = torch.bmm(g, phi.transpose(1, 2)) / phi.shape[-1]
        y = self.out(torch.bmm(mixed, theta.flatten(2)).view_as(theta))
        return self._normalised(y).add_(x)  # a map less to allocate

    def _normalised(self, y: Tensor) -> Tensor:
        if y.numel() > y.shape[1]:
            return self.norm(y)
        bn = self.norm  # one value a channel has no variance
        return F.batch_norm(y, bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=bn.eps)
