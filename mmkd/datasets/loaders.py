"""Properties of a DataLoader."""

from __future__ import annotations

from torch.utils.data import DataLoader


def length_of(loader: DataLoader) -> int | None:
    """Batches of one pass; None if the sampler has no length, such as an endless one."""
    try:
        return len(loader)
    except TypeError:
        return None
