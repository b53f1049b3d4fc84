"""What is wrong with the address of a value in a network, with near-by names."""

from __future__ import annotations

import difflib
from typing import Any

from torch import nn


def unknown_message(model: nn.Module, tap: Any, path: str) -> str:
    """The model has no module at ``path``."""
    names = [name for name, _ in model.named_modules() if name]
    near = difflib.get_close_matches(path, names, n=5, cutoff=0.4)
    parent = path
    while parent and parent not in names:
        parent = parent.rpartition('.')[0]
    inside = [name for name in names if name.rpartition('.')[0] == parent][:12]
    hint = f' Near-by names: {", ".join(near)}.' if near else ''
    return (
        f"Tap '{tap}': {type(model).__name__} has no module '{path}'.{hint} "
        f"'{parent or type(model).__name__}' contains: {', '.join(inside) or 'nothing'}. "
        'mmkd plan lists every candidate.'
    )


def silent_message(model: nn.Module, tap: Any) -> str:
    """The module was not called."""
    message = f"Tap '{tap}' of {type(model).__name__} saw nothing in this step."
    if tap.path.split('.')[-1] in ('decode_head', 'roi_head') and tap.is_output:
        message += (
            f" '{tap.path}' is entered through its methods, so its output cannot be hooked:"
            f" try '{tap.path}.forward()' or a layer inside it."
        )
    names = [n for n, _ in model.named_children() if n != tap.path]
    return f'{message} Near-by names: {", ".join(names)}.'


def never_called_message(tap: Any, path: str, module: nn.Module) -> str:
    """The module only holds others."""
    names = [f'{path}.{name}' for name, _ in module.named_children()]
    inside = f'; tap what it holds: {", ".join(map(repr, names[:4]))}' if names else ''
    return f"Tap '{tap}': {path} is a {type(module).__name__}, which is never called{inside}."
