"""Queues of past entries of each class, first in, first out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.functional.boxes import rank_in_group
from mmkd.functional.device import sizes_of_groups, upload


class Queue(nn.Module):
    """The last entries of each class, (K, size, C), initialised with random unit vectors.

    Args:
        classes, size, channels (int): K, entries of a class, width.
        persistent (bool): part of checkpoints; without, a resumed run starts it anew.
    """

    def __init__(self, classes: int, size: int, channels: int, persistent: bool = True) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        entries = torch.randn(classes, size, channels, generator=generator)
        self.register_buffer('entries', F.normalize(entries, dim=2), persistent)
        self.register_buffer('next', torch.zeros(classes, dtype=torch.long), persistent)

    @torch.no_grad()
    def push(self, rows: Tensor, classes: Tensor) -> None:
        """Append (R, C) to the queues of their classes (R,), oldest entries go."""
        count, size = self.entries.shape[:2]
        new = sizes_of_groups(classes, count)
        order = rank_in_group(classes, count) - (new - size).clamp(min=0)[classes]
        if len(rows) > size:  # a class may have more than there is room for: its last ones stay
            where = (order >= 0).nonzero()[:, 0]
            rows, classes, order = rows[where], classes[where], order[where]
        self.entries[classes, (self.next[classes] + order) % size] = rows.to(self.entries)
        self.next.copy_((self.next + new.clamp(max=size)) % size)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """The same ``count`` random places of every class, (K * count, C)."""
        order = torch.randperm(self.entries.shape[1], generator=generator)[:count]
        return self.entries[:, upload(order, self.next)].flatten(0, 1)
