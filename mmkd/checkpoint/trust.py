"""Whether files may run code, which ``--trust-checkpoint`` says for the whole process."""

from __future__ import annotations

_trusted = False


def trust_checkpoints(on: bool = True) -> None:
    """Let every file that is read later run the code in it (``--trust-checkpoint``)."""
    global _trusted
    _trusted = on


def trusted() -> bool:
    """What :func:`trust_checkpoints` was told last."""
    return _trusted
