"""Queues of past entries of each class, first in, first out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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
        size = self.entries.shape[1]
        for k in classes.unique().tolist():
            new = rows[classes == k][-size:]
            places = (self.next[k] + torch.arange(len(new), device=rows.device)) % size
            self.entries[k, places] = new
            self.next[k] = (self.next[k] + len(new)) % size

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """The same ``count`` random places of every class, (K * count, C)."""
        order = torch.randperm(self.entries.shape[1], generator=generator)[:count]
        return self.entries[:, order.to(self.entries.device)].flatten(0, 1)
