"""Errors of checkpoint files, in one sentence."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A file that is no complete checkpoint, or that may not be loaded safely."""


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip('.')


def damage(path: str, error: Exception) -> str:
    """Sentence about a file whose reading ended with ``error``."""
    return f'{path} is truncated or damaged ({first_line(error)}). Copy or download it again.'
