"""Whether files may run code: ``--trust-checkpoint``, for the whole process."""

from __future__ import annotations

_trusted = False


def trust_checkpoints(on: bool = True) -> None:
    """Let every file that is read later run the code in it (``--trust-checkpoint``)."""
    global _trusted
    _trusted = on


def trusted() -> bool:
    """The last value of :func:`trust_checkpoints`."""
    return _trusted
