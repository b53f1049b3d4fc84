"""What encoders of all libraries have in common, and tokens laid out as a map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmkd.checkpoint.fitting import Fit

#: of ImageNet, by channel, for RGB from 0 to 255: where a model's files do not say
IMAGENET = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class Encoder(nn.Module):
    """An image encoder: normalised RGB (N, 3, H, W) -> maps (N, D, h, w) and a vector (N, D).

    Attributes:
        network (nn.Module): as its library builds it, with the names of its checkpoints.
        title (str): what it was asked for as.
        patch (int): pixels of which both sides of an image are multiples; a cell of the maps.
        size (tuple[int, int] | None): height and width that its files name.
        mean, std (Sequence[float]): of RGB from 0 to 255.
        source (str): where it is from.
        file (str): its own weights, which the caller loads; ``''`` for none.
        fit (Fit | None): how its weights fit, which its library has loaded; None: it has not.
    """

    network: nn.Module
    title: str
    patch: int
    size: tuple[int, int] | None = None
    mean: Sequence[float] = IMAGENET[0]
    std: Sequence[float] = IMAGENET[1]
    source: str = ''
    file: str = ''
    fit: Fit | None = None

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        raise NotImplementedError

    def try_out(self) -> None:
        """Run it once on a small image, which costs next to nothing.

        Raises:
            ValueError: it cannot, or gives no maps.
        """
        cells = max(2, -(-64 // self.patch))
        size = cells * self.patch, (cells + 1) * self.patch
        image = torch.zeros(1, 3, *size, device=next(self.parameters(), torch.zeros(())).device)
        own = f'size={self.size}' if self.size else 'size=(HEIGHT, WIDTH)'
        try:
            with torch.no_grad():
                maps, _ = self(image)
        except (AssertionError, RuntimeError, ValueError, IndexError) as error:
            raise ValueError(
                f'{self.title} cannot be run on an image of {size[0]} x {size[1]} pixels '
                f'({" ".join(str(error).split())}). If it takes images of its own size alone, set '
                f'{own}, to which they are then resized.'
            ) from None
        if not maps:
            raise ValueError(
                f'{self.title} gives no maps (N, D, h, w), with which student maps could be '
                'compared. Take an encoder that keeps its patches.'
            )


def as_map(title: str, tokens: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Tokens (N, L, D) as a map (N, D, h, w), and those in front of it (N, L - h w, D).

    Class and register tokens lie in front of the patches.

    Args:
        title (str): for the message.
        tokens (Tensor): or a map (N, D, h, w) or (N, h, w, D), which has nothing in front.
        grid (tuple[int, int]): h and w.

    Raises:
        ValueError: fewer tokens than patches, or so many more that they are no patches.
    """
    if tokens.dim() == 4:
        last = tuple(tokens.shape[1:3]) == grid and tuple(tokens.shape[2:]) != grid
        tokens = tokens.permute(0, 3, 1, 2) if last else tokens
        return tokens.contiguous(), tokens.new_zeros(len(tokens), 0, tokens.shape[1])
    count = grid[0] * grid[1]
    front = tokens.shape[1] - count
    if not 0 <= front <= MOST_IN_FRONT:
        raise ValueError(
            f'{title} gives {tokens.shape[1]} tokens for {grid[0]} x {grid[1]} patches, so they '
            'cannot be laid out as a map. Is a patch of it of another size (patch=)?'
        )
    patches = tokens[:, front:].transpose(1, 2).unflatten(2, grid)
    return patches.contiguous(), tokens[:, :front]


#: class and register tokens that any known encoder has
MOST_IN_FRONT = 64


def refuse_patch(title: str, patch: int | None) -> None:
    """A library's encoder says itself how large its patches are; ValueError for an option."""
    if patch is not None:
        raise ValueError(
            f'VisionModel: patch={patch} has no effect, as {title} says how large its patches are; '
            'leave it out.'
        )


def summary(patches: Tensor, front: Tensor) -> Tensor:
    """The class token (N, D), the mean of the patches (N, D, h, w) where there is none."""
    return front[:, 0] if front.shape[1] else patches.flatten(2).mean(2)


def positions(title: str, layers: Sequence[int], count: int) -> list[int]:
    """Layers from 0 on, of which -1 is the last.

    Raises:
        ValueError: one that there is not.
    """
    wrong = [i for i in layers if not -count <= i < count]
    if wrong:
        raise ValueError(
            f'{title} has {count} layers, from 0 to {count - 1} or -{count} to -1, but layer '
            f'{wrong[0]} was asked for.'
        )
    return [i % count for i in layers]
