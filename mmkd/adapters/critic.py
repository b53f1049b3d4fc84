"""Critics: of segmentation maps as in self-attention GANs, of patches, and what all need."""

from __future__ import annotations

from logging import WARNING
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import spectral_norm

from mmkd.schedule import Progress

#: cells a side below which the last convolution has nothing to see
LEAST_SIDE = 64
#: accuracy of a critic above which it is too sure to teach anything
SURE = 0.95
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


def judged(critic: nn.Module, *inputs: Any) -> Any:
    """What a critic makes of ``inputs``, with gradients in them; its parameters are constants."""
    constants = {name: p.detach() for name, p in critic.named_parameters()}
    return functional_call(critic, constants, inputs)


def patch_layers(channels: int, width: int) -> nn.Sequential:
    """(N, C, H, W) -> (N, width, ceil(H / 4), ceil(W / 4)): two convolutions 3x3 of stride 2.

    With spectral norm (one power iteration a forward) and LeakyReLU 0.2, without BatchNorm, so that
    one image is enough.
    """
    layers: list[nn.Module] = []
    for before in (channels, width):
        layers += [spectral_norm(nn.Conv2d(before, width, 3, stride=2, padding=1))]
        layers += [nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers)


class Certainty(nn.Module):
    """Warns once where a critic has been right in more than :data:`SURE` of the cases for a tenth
    of the run; then its term teaches nothing.

    Args:
        owner (str): the method, for the message.
    """

    steps: Tensor

    def __init__(self, owner: str) -> None:
        super().__init__()
        self.owner, self.told = owner, False
        self.register_buffer('steps', torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def forward(self, accuracy: Tensor, progress: Progress) -> None:
        """Count one step, of an accuracy () in [0, 1]; the count is read ten times in a run."""
        self.steps.copy_(torch.where(accuracy > SURE, self.steps + 1, 0))
        tenth = progress.total // 10
        if self.told or not tenth or (progress.iteration + 1) % tenth or int(self.steps) < tenth:
            return
        self.told = True
        text = (
            f'{self.owner}: for {tenth} iterations its critic has been right in more than '
            f'{SURE:.0%} of the cases, so that its term hardly teaches anything. Lower the '
            "learning rate of the critic's optimizer, or leave the term out."
        )
        print_log(text, 'current', WARNING)
