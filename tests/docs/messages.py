"""The text of every error that mmkd can raise, read from its source."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOLE = '…'  # a value that is only known when the error happens


def written(node: ast.AST) -> str | None:
    """A string as it stands in the source, with a hole for each value; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return ''.join(
            part.value if isinstance(part, ast.Constant) else HOLE for part in node.values
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        sides = [written(side) for side in (node.left, node.right)]
        return None if None in sides else ''.join(sides)
    return None


def strings(path: Path) -> list[str]:
    """Every string in a file."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return [text for node in nodes if (text := written(node))]


def raised(path: Path) -> Iterator[tuple[str, str]]:
    """(name of the exception, message) of each ``raise`` that has its message in place."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            text = written(node.exc.args[0])
            if text:
                yield ast.unparse(node.exc.func), text


@functools.cache
def pieces(quoted: str) -> list[str]:
    """A quotation, cut at its holes."""
    return [piece for part in quoted.split(HOLE) if (piece := part.strip())]


def fits(quoted: str, text: str) -> bool:
    """Whether the pieces of a quotation occur in ``text`` in their order."""
    position = 0
    for piece in pieces(quoted):
        position = text.find(piece, position)
        if position < 0:
            return False
        position += len(piece)
    return True
