"""What is wrong with a file, in one sentence."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A file that is no complete checkpoint, or that may not be loaded safely."""


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip('.')
