"""Names in a config: found in any case; errors suggest the nearest name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any


def find_name(name: Any, known: Iterable[Any]) -> str | None:
    """The known name itself, or the only one that differs from it in case alone."""
    texts = [text for text in known if isinstance(text, str)]
    if not isinstance(name, str) or name in texts:
        return name if isinstance(name, str) else None
    same = {text for text in texts if text.casefold() == name.casefold()}
    return same.pop() if len(same) == 1 else None


def nearest(name: Any, known: Iterable[Any]) -> str | None:
    """The known name that is spelt most alike, if any is at all."""
    spelt = {text.casefold(): text for text in known if isinstance(text, str)}
    close = difflib.get_close_matches(str(name).casefold(), spelt, n=1, cutoff=0.6)
    return spelt[close[0]] if close else None


def did_you_mean(name: Any, known: Iterable[Any]) -> str:
    """`` Did you mean …?`` for the nearest name, or nothing."""
    close = nearest(name, known)
    return f' Did you mean {close!r}?' if close else ''


def check_part_name(kind: str, name: Any, taken: bool = False) -> None:
    """Refuse the name of a peer or objective that log keys or checkpoints cannot have.

    Args:
        kind (str): for the message.
        taken (bool): a container of torch has an attribute of this name.

    Raises:
        ValueError: no text, empty, with a dot or ``loss`` in it, or taken.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f'{kind} name {name!r}: it must be a text that is not empty.')
    if 'loss' in name or '.' in name or taken:
        raise ValueError(
            f'{kind} name {name!r}: dots are path separators, and mmengine adds up every log key '
            "that contains 'loss'; torch keeps some names (train, pop, …) for itself. Choose "
            'another name.'
        )


def turning(name: str) -> str:
    """Log key of the loss of value 0 with which a balance turns the gradient of an objective."""
    return f'kd.{name}.loss_projection'


def no_file(file: Any, *ends: str) -> str:
    """Why a name is not that of a file: there is none, or it is a folder, whose files may be meant.

    Args:
        *ends (str): how names of files that fit end.
    """
    folder = Path(str(file)).expanduser()
    if not folder.is_dir():
        return f'there is no file {file}.'
    inside: list[str] = []
    with suppress(OSError):
        inside = sorted(p.name for p in folder.iterdir() if p.suffix in ends and p.is_file())
    known = ', '.join(inside[:6]) + ', …' * (len(inside) > 6)
    what = f'It has {known}.' if inside else f'It has none that ends in {" or ".join(ends)}.'
    return f'{file} is a folder, and a file is needed. {what}'
