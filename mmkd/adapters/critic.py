"""A critic of segmentation maps, as in self-attention GANs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

#: cells a side below which the last convolution has nothing to see
LEAST_SIDE = 64
_EPS = 1e-12  # the root has no gradient at 0


class SelfAttention(nn.Module):
    """``x + gamma * sum_j softmax_j(q_i . k_j) v_j`` over all places j; the identity at first.

    (N, C, H, W) -> same; q and k have C / 8 channels, their product is not scaled.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).flatten(2) for layer in (self.query, self.key, self.value))
        where = (q.mT @ k).softmax(-1)
        return x + self.gamma * (v @ where.mT).view_as(x)


class Critic(nn.Module):
    """(N, C, H, W) -> (N,): score of each map, high for maps like the teacher's.

    Four convolutions 4x4 of stride 2 with spectral norm (one power iteration a forward) and
    LeakyReLU 0.1, self-attention behind the third and the fourth, and a convolution 4x4 to a map
    of scores, whose mean is the score. H and W must be at least :data:`LEAST_SIDE`.

    Args:
        classes (int): the first K of the C channels, the input of ``first``.
        others (int): the rest of them, such as the image.
        first (nn.Module): applied to the K channels before the convolutions.
        width (int): channels behind the first convolution; they double with each of the next.
    """

    def __init__(self, classes: int, others: int, first: nn.Module, width: int = 64) -> None:
        super().__init__()
        self.classes, self.first = classes, first
        layers: list[nn.Module] = []
        before = classes + others
        for index in range(4):
            after = width * 2**index
            layers += [spectral_norm(nn.Conv2d(before, after, 4, stride=2, padding=1))]
            layers += [nn.LeakyReLU(0.1)]
            layers += [SelfAttention(after)] if index >= 2 else []
            before = after
        self.layers = nn.Sequential(*layers, nn.Conv2d(before, 1, 4))

    def forward(self, x: Tensor) -> Tensor:
        maps, others = x[:, : self.classes], x[:, self.classes :]
        return self.layers(torch.cat((self.first(maps), others), 1)).mean((1, 2, 3))


def gradient_penalty(
    critic: nn.Module, student: Tensor, teacher: Tensor, channels: int | None = None
) -> Tensor:
    """``E[(|dD/dx| - 1)^2]`` at ``x = a teacher + (1 - a) student``, a ~ U(0, 1) of each image.

    Args:
        critic (nn.Module): D, (N, C, H, W) -> (N,).
        student, teacher (Tensor): (N, C, H, W), without gradients.
        channels (int | None): the norm is over the first so many; None for all.
    """
    share = torch.rand(len(student), 1, 1, 1, device=student.device, dtype=student.dtype)
    mixed = share * teacher + (1 - share) * student
    # A zero of the critic's parameters makes it differentiable and no leaf, which would be given a
    # gradient that nobody reads.
    mixed = mixed + 0 * next(critic.parameters()).sum()
    (slope,) = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)
    norm = (slope[:, :channels].square().flatten(1).sum(1) + _EPS).sqrt()
    return (norm - 1).square().mean()
