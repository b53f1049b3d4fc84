"""Print the installed versions, and whether they are compatible.

mmkd environment
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmkd.commands.arguments import command_parser


def parser() -> argparse.ArgumentParser:
    return command_parser('environment', __doc__)


def main(argv: Sequence[str] | None = None) -> None:
    from mmkd.environment import main as show

    parser().parse_args(argv)
    raise SystemExit(show())
