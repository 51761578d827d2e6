"""Printing of tables, notes, CSV and JSON; third-party text is escaped."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Literal

import click

from toxtrail.cli._options import refuse_several
from toxtrail.console import cell, console, echo, echo_data, lines
from toxtrail.redaction import redacted
from toxtrail.reporting.table import (
    Table,
    as_latex,
    as_markdown,
    drop_columns_to_fit,
    terminal_cells,
    wrap_to_width,
)
from toxtrail.text_escaping import escape_latex, escape_markdown

json_option: Callable[[Any], Any] = click.option(
    "--json", "as_json", is_flag=True, help="Output JSON."
)

OutputFormat = Literal["text", "json", "csv", "md", "latex"]

WIDE = 200
"""Width of a table in a pipe or a file."""
COLOURS = {"higher": "red", "lower": "cyan", "NO": "red", "became toxic": "red"}
"""First word (or all) of a cell -> its colour in a colour terminal."""


def format_options(*names: OutputFormat) -> Callable[[Any], Any]:
    """Add the options --json, --csv, --md, --latex, of which at most one may be given; the command
    receives `form`, None for text."""
    says = {
        "json": "Output JSON.",
        "csv": "Output CSV with all columns (see docs/tables.md).",
        "md": "Output Markdown tables.",
        "latex": "Output LaTeX tables (they need booktabs and longtable).",
    }

    def decorate(function: Any) -> Any:
        @wraps(function)
        def with_form(*arguments: Any, **values: Any) -> Any:
            chosen = {form: values.pop(f"as_{form}") for form in names}
            refuse_several({f"--{form}": is_given for form, is_given in chosen.items()})
            form = next((form for form, is_given in chosen.items() if is_given), None)
            return function(*arguments, form=form, **values)

        command: Any = with_form
        for form in reversed(names):
            command = click.option(f"--{form}", f"as_{form}", is_flag=True, help=says[form])(
                command
            )
        return command

    return decorate


def print_json(value: object, *, texts: bool = False) -> None:
    """Print indented JSON on standard output.

    Args:
        texts: whether it contains texts of the data, which are printed unchanged.
    """
    content = value if texts else _without_secrets(value)
    echo_data(json.dumps(content, indent=2, ensure_ascii=True, allow_nan=False) + "\n")


def tell_delimiter(path: Path) -> None:
    """Print the delimiter of a .csv file on stderr, if it is not a comma."""
    from toxtrail.datasets.readers.csv_rows import shown as delimiter_text
    from toxtrail.datasets.readers.csv_rows import unusual_delimiter

    if mark := unusual_delimiter(path, None):
        echo(f"{path.name} is read with the delimiter {delimiter_text(mark)}.", err=True)


def print_csv(rows: Sequence[Mapping[str, Any]], *, texts: bool = False) -> None:
    """Print tidy CSV with the columns of the first row; no cell is a formula.

    Args:
        texts: as in `print_json`.
    """
    from toxtrail.records.csv_text import rows_to_csv

    echo_data(rows_to_csv(rows if texts else _without_secrets(rows)))


def _without_secrets(value: Any) -> Any:
    """Return the value with secrets redacted."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {_without_secrets(name): _without_secrets(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_secrets(item) for item in value]
    return value


def print_table(table: Table) -> None:
    """Print a table, at full width in a pipe, else folded to the terminal's width."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable

    screen = console(terminal_width())
    layout = wrap_to_width(table, screen.width)
    title = table.title and cell(table.title, "bold")
    grid = RichTable(box=SIMPLE_HEAD, title=title, title_justify="left")
    for column, width in zip(table.columns, layout.widths, strict=True):
        grid.add_column(cell(column.name), justify=column.align, overflow="fold", width=width)
    for texts, row in zip(terminal_cells(table), layout.rows, strict=True):
        grid.add_row(*map(_coloured, texts, row))
    screen.print(grid)


def _coloured(text: str, cell_lines: Sequence[str]) -> Any:
    return lines([cell(line, _colour(text)) for line in cell_lines])


def format_bytes(size: float | None) -> str:
    """Format bytes: 1.23 GB."""
    if size is None:
        return "unknown"
    for unit, bytes_ in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= bytes_:
            scaled = size / bytes_
            return f"{scaled:,.0f} {unit}" if scaled >= 100 else f"{scaled:.3g} {unit}"
    return f"{size:.0f} bytes"


def terminal_width() -> int:
    """Return the width of the terminal, or of a pipe."""
    return console().width if sys.stdout.isatty() else WIDE


def fit_to_terminal(
    tables: Sequence[Table], droppable: Sequence[str], most: int | None = None
) -> tuple[list[Table], list[str]]:
    """Drop these columns, in their order, until the tables fit the terminal (and `most` columns).

    Returns:
        The tables, and a note that names the dropped columns, if any.
    """
    width = terminal_width() if most is None else min(terminal_width(), most)
    results = [drop_columns_to_fit(table, droppable, width) for table in tables]
    left_out = {name for _, names in results for name in names}
    names = ", ".join(name for name in droppable if name in left_out)
    notes = [f"The terminal is too narrow for: {names}. --csv has every column."] if names else []
    return [table for table, _ in results], notes


def _colour(cell: str) -> str:
    return COLOURS.get(cell) or COLOURS.get(cell.split(" ")[0], "")


def print_tables(
    form: OutputFormat,
    tables: Sequence[Table],
    notes: Sequence[str] = (),
    heads: Sequence[str] = (),
) -> None:
    """Print tables and notes, as text, Markdown or LaTeX; the most important table is last."""
    if form == "text":
        for table in tables:
            print_table(table)
        for note in notes:
            echo(note)
        for head in heads:
            echo(head, bold=True)
        return
    render, escape = (as_markdown, escape_markdown) if form == "md" else (as_latex, escape_latex)
    lines = [f"{escape(note)}\n" for note in (*notes, *heads)]
    echo("\n".join([*map(render, tables), *lines]))
