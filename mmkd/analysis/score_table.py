"""A table of scores and costs: a column for each model, a row for each metric, cost and class."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

FORMS = ('.md', '.csv', '.json')
ON_SCREEN = 30  # lines; a longer table is shown without its classes unless they are asked for


@dataclass
class ScoreTable:
    """Scores of several models on one test set, and what they cost.

    Attributes:
        columns (list[str]): names of the models, teachers first.
        rows (dict[str, list[float]]): a value of each model by metric, cost or class; NaN where a
            model has none.
        teachers (int): how many of the columns are teachers'.
        costs, classes (list[str]): names of those rows that are costs, and classes.
        notes (list[str]): sentences below the table.
    """

    columns: list[str] = field(default_factory=list)
    rows: dict[str, list[float]] = field(default_factory=dict)
    teachers: int = 0
    costs: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(
        self,
        name: str,
        scores: Mapping[str, float],
        costs: Mapping[str, float] | None = None,
        classes: Collection[str] = (),
    ) -> None:
        """Append a column.

        Args:
            name (str): of the model.
            scores (dict[str, float]): by metric or class.
            costs (dict[str, float] | None): by cost, its unit in the name.
            classes (Collection[str]): which of the scores are those of a single class.
        """
        costs = costs or {}
        for values in self.rows.values():
            values.append(math.nan)
        for key, value in {**scores, **costs}.items():
            if key not in self.rows:
                self.rows[key] = [math.nan] * (len(self.columns) + 1)
                self.costs += [key] * (key in costs)
                self.classes += [key] * (key in classes)
            self.rows[key][-1] = float(value)
        self.columns.append(name)

    def order(self, per_class: bool = True) -> list[str]:
        """Names of the rows: metrics, costs, then classes."""
        metrics = [key for key in self.rows if key not in (*self.costs, *self.classes)]
        return [*metrics, *self.costs, *(self.classes if per_class else [])]

    def cells(self, per_class: bool = True) -> list[list[str]]:
        """Rows with a header; students after the first are also shown as differences to it, but
        not their costs: they are one network."""
        base, *others = range(self.teachers, len(self.columns))
        gains = [f'{self.columns[i]} - {self.columns[base]}' for i in others]
        table = [['', *self.columns, *gains]]
        for key in self.order(per_class):
            values = self.rows[key]
            if key in self.costs:
                table.append([key, *map(_cost, values), *([''] * len(others))])
                continue
            digits = 2 if any(abs(v) > 1 for v in values) else 3
            shown = [_number(v, f'.{digits}f') for v in values]
            differences = [_number(values[i] - values[base], f'+.{digits}f') for i in others]
            table.append([key, *shown, *differences])
        return table

    def fits_screen(self) -> bool:
        """Whether the table is short enough to be shown with all of its classes."""
        return len(self.rows) < ON_SCREEN

    def text(self, form: str = '.md', per_class: bool = True) -> str:
        """As markdown (``'.md'``), ``'.csv'`` or ``'.json'``; the notes follow but in CSV."""
        if form == '.json':
            return self._json()
        table = self.cells(per_class)
        if form == '.csv':
            out = io.StringIO()
            csv.writer(out, lineterminator='\n').writerows(table)
            return out.getvalue()
        lines = ['| ' + ' | '.join(_escaped(row)) + ' |' for row in table]
        lines.insert(1, '|---' * len(table[0]) + '|')
        return '\n'.join([*lines, *([''] * bool(self.notes)), *self.notes]) + '\n'

    def _json(self) -> str:
        rows = {key: [None if math.isnan(v) else v for v in self.rows[key]] for key in self.order()}
        named = dict(costs=self.costs, classes=self.classes, notes=self.notes)
        return json.dumps(dict(columns=self.columns, rows=rows, **named), indent=1) + '\n'


def form_of(path: str) -> str:
    """The ending of a file's name; ValueError if it is none of ``FORMS``."""
    form = Path(path).suffix
    if form not in FORMS:
        raise ValueError(f'a comparison is written as .md, .csv or .json, not as {path!r}.')
    return form


def _escaped(cells: Sequence[str]) -> list[str]:
    """Names as cells of a markdown table, which a bar would divide."""
    return [cell.replace('|', '\\|') for cell in cells]


def _drawn(cells: Sequence[Sequence[str]]) -> Table:
    """A table for a terminal; differences have a name of two lines."""
    head, *rows = cells
    drawn = Table(box=box.SIMPLE_HEAD)
    for place, name in enumerate(head):
        title = Text(name.replace(' - ', '\n- '))
        drawn.add_column(title, justify='right' if place else 'left', no_wrap=True)
    for row in rows:
        drawn.add_row(*map(Text, row))
    return drawn


def _number(value: float, form: str) -> str:
    return 'n/a' if math.isnan(value) else format(value, form)


def _cost(value: float) -> str:
    """Three significant digits: networks differ by orders of magnitude."""
    return _number(value, '.0f' if value >= 100 else '.3g')


def show(table: ScoreTable, per_class: bool = False, stream: Any = None) -> None:
    """Print a table: in colours on a terminal, as markdown elsewhere.

    Classes are left out of a table that would fill more than a screen.

    Args:
        per_class (bool): never leave them out.
        stream (TextIO | None): standard output if None.
    """
    per_class = per_class or table.fits_screen()
    hidden = 0 if per_class else len(table.classes)
    console = Console(file=stream, highlight=False)
    if console.is_terminal:
        drawn = _drawn(table.cells(per_class))
        # A wider table is not cut: names that end in … look alike.
        anything = console.options.update(width=10_000)
        console.width = max(console.width, console.measure(drawn, options=anything).maximum)
        console.print(drawn)
        if table.notes:
            console.print(*table.notes, sep='\n', markup=False, soft_wrap=True)
    else:
        print(table.text(per_class=per_class), end='', file=stream)
    if hidden:
        print(
            f'{hidden} classes are not shown: --per-class shows them, --out writes them.',
            file=stream,
        )
