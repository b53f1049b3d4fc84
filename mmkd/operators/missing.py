"""Operators that cannot run here, and the command that installs them."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import packages_distributions, version
from typing import Any, NoReturn


class OperatorMissing(RuntimeError):
    """Neither mmcv nor mmkd has an operator that can run here."""


def absent(name: str) -> Callable[..., NoReturn]:
    """An operator that refuses to run."""

    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise OperatorMissing(
            f"mmcv's operator {name} is not among those that mmkd has without a compiler. Choose a "
            f'model without it, or compile mmcv: {compile_command()}'
        )

    return refuse


def compile_command() -> str:
    """The command that compiles the installed mmcv against the installed torch."""
    installed = packages_distributions().get('mmcv', [])  # none where it is a source tree
    pins = [f'{name.removesuffix("-lite")}=={version(name)}' for name in installed]
    return (
        'CFLAGS=-g0 pip install --force-reinstall --no-deps --no-cache-dir --no-build-isolation '
        f'{(pins or ["onedl-mmcv"])[0]}'
    )
