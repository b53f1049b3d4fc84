"""The files that networks are going to start from."""

from __future__ import annotations

from collections.abc import Container, Mapping

from torch import nn

from mmkd.checkpoint.checkpoint_error import CheckpointError
from mmkd.checkpoint.finding import local_file
from mmkd.checkpoint.inspecting import check_file


def check_start(who: str, source: str | None) -> None:
    """Stop if a local file of weights is missing, or no checkpoint; nothing is downloaded.

    Args:
        who (str): the option that names it.
        source (str | None): as ``load_from`` of a config; addresses are not looked up.

    Raises:
        FileNotFoundError, CheckpointError: with ``who``.
    """
    if not source or '://' in source:
        return
    try:
        with local_file(source) as path:  # the newest of a folder
            check_file(path)
    except (FileNotFoundError, CheckpointError) as error:
        raise type(error)(f'{who}: {error}') from None


def check_starts(model: nn.Module, later: Container[str] = ()) -> None:
    """:func:`check_start` of every ``init_cfg=dict(type='Pretrained', …)`` in a model.

    Args:
        later: names of modules whose file is written by then.
    """
    for name, module in model.named_modules():
        found = getattr(module, 'init_cfg', None) or []
        for one in [found] if isinstance(found, Mapping) else found:
            kind = str(one.get('type')).rpartition('.')[2]
            if kind in ('Pretrained', 'PretrainedInit') and name not in later:
                check_start(f'{name}.init_cfg'.lstrip('.'), one.get('checkpoint'))
