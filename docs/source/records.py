"""What is read of a method and of a config."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class UndocumentedError(ValueError):
    """A method or config that does not say what the tables need; names file and remedy."""


@dataclass(frozen=True)
class Option:
    """One argument: its default as written, its type and meaning as in the docstring."""

    name: str
    default: str
    kind: str
    meaning: str


@dataclass
class Method:
    """One registered objective, as its file describes it."""

    name: str
    file: str
    compares: str
    summary: str
    paper: str
    notes: list[str]
    options: list[Option]
    remark: str
    also: tuple[str, ...] | None  # of the base's options; None for all
    refuses: str
    base: str
    needs_teacher: bool
    needs_ground_truth: bool
    zero_at_equality: bool
    rank_invariant: bool
    families: tuple[str, ...]
    teacher_families: tuple[str, ...]
    named_taps: tuple[str, ...]
    only: dict[str, tuple[str, ...]]
    taps: str
    configs: list[str] = field(default_factory=list)

    @property
    def page(self) -> str:
        return Path(self.file).stem


@dataclass(frozen=True)
class Recipe:
    """One shipped config."""

    file: str
    student: str
    teacher: str
    objectives: tuple[str, ...]
