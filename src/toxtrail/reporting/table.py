"""A table, and its renderers: terminal text, Markdown, LaTeX and HTML; cells are escaped."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from toxtrail.redaction import redacted
from toxtrail.reporting.column_widths import (
    column_widths,
    gap_width,
    least_column_widths,
    wrap_cell,
)
from toxtrail.text_escaping import escape_control_chars, escape_latex, escape_markdown

if TYPE_CHECKING:
    pass


class Column(NamedTuple):
    """The heading of a column, and how its cells are aligned."""

    name: str
    align: Literal["left", "right"] = "left"


def text_columns(*names: str) -> tuple[Column, ...]:
    """Return left-aligned columns."""
    return tuple(Column(name) for name in names)


def number_columns(*names: str) -> tuple[Column, ...]:
    """Return right-aligned columns."""
    return tuple(Column(name, "right") for name in names)


class Table(NamedTuple):
    """Formatted rows of cells."""

    title: str | None
    columns: Sequence[Column]
    rows: Sequence[Sequence[object]]

    def without(self, names: Collection[str]) -> Table:
        """Return the table without the columns of these names."""
        indices = [i for i, column in enumerate(self.columns) if column.name not in names]
        return self._replace(
            columns=[self.columns[i] for i in indices],
            rows=[[row[i] for i in indices] for row in self.rows],
        )


def move_constants_to_title(table: Table, names: Collection[str]) -> Table:
    """Drop those of the named columns that have one value in all rows; the title states it.

    A table of a single row is left as it is, and a value of "-" is not stated.
    """
    if len(table.rows) < 2:
        return table
    constants = {
        column.name: values[0]
        for column, values in zip(table.columns, zip(*table.rows, strict=True), strict=True)
        if column.name in names and len(set(values)) == 1
    }
    stated = [f"{name} {value}" for name, value in constants.items() if value != "-"]
    title = "; ".join([*([table.title] if table.title else []), *stated])
    return table.without(constants)._replace(title=title)


def drop_columns_to_fit(
    table: Table, droppable: Sequence[str], width: int
) -> tuple[Table, list[str]]:
    """Drop these columns, in their order, until the table fits; return it and what was dropped."""
    dropped: list[str] = []
    for name in droppable:
        least = least_column_widths(_column_names(table), terminal_cells(table))
        if sum(least) + gap_width(len(table.columns)) <= width:
            break
        if name in _column_names(table):
            dropped.append(name)
            table = table.without([name])
    return table, dropped


class WrappedTable(NamedTuple):
    """Layout of a table on a terminal."""

    widths: Sequence[int]
    """Width of each column."""
    rows: Sequence[Sequence[Sequence[str]]]
    """Row, column -> the lines of a cell."""


def wrap_to_width(table: Table, width: int) -> WrappedTable:
    """Lay a table out on a terminal of this width; no text moves its cursor."""
    cells = terminal_cells(table)
    widths = column_widths(_column_names(table), cells, width)
    rows = [[wrap_cell(cell, w) for cell, w in zip(row, widths, strict=True)] for row in cells]
    return WrappedTable(widths, rows)


def terminal_cells(table: Table) -> list[list[str]]:
    """Return the cells in a form that is safe to print: without secrets and control characters."""
    return [[escape_control_chars(redacted(str(cell))) for cell in row] for row in table.rows]


def _column_names(table: Table) -> list[str]:
    return [column.name for column in table.columns]


def as_markdown(table: Table) -> str:
    """Return a GitHub table."""
    rule = ["---:" if column.align == "right" else "---" for column in table.columns]
    lines = [
        [escape_markdown(column.name) for column in table.columns],
        rule,
        *([escape_markdown(str(cell)) for cell in row] for row in table.rows),
    ]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"**{escape_markdown(table.title)}**\n\n{body}\n" if table.title else f"{body}\n"


def as_latex(table: Table) -> str:
    """Return a booktabs longtable, with the title as its caption."""
    alignment = "".join(column.align[0] for column in table.columns)
    head = " & ".join(escape_latex(column.name) for column in table.columns)
    rows = [" & ".join(escape_latex(str(cell)) for cell in row) + r" \\" for row in table.rows]
    caption = [rf"\caption{{{escape_latex(table.title)}}} \\"] if table.title else []
    return "\n".join(
        [
            rf"\begin{{longtable}}{{{alignment}}}",
            *caption,
            r"\toprule",
            rf"{head} \\",
            r"\midrule",
            r"\endhead",
            *rows,
            r"\bottomrule",
            r"\end{longtable}",
            "",
        ]
    )
