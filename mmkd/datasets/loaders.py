"""What a DataLoader says about itself."""

from __future__ import annotations

from torch.utils.data import DataLoader


def length_of(loader: DataLoader) -> int | None:
    """Batches of one pass; None where the sampler does not say, as an endless one need not."""
    try:
        return len(loader)
    except TypeError:
        return None
