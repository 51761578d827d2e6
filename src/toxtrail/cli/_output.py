"""Printing of tables, notes, CSV and JSON; third-party text is escaped."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from toxtrail.cli._options import refuse_several
from toxtrail.console import console, echo, echo_data, echo_lines, shown, shown_on
from toxtrail.redaction import redactor
from toxtrail.reporting.table import Table, as_latex, as_markdown
from toxtrail.text_escaping import escape_latex, escape_markdown

if TYPE_CHECKING:
    from rich.tree import Tree

json_option: Callable[[Any], Any] = click.option(
    "--json", "as_json", is_flag=True, help="Output JSON."
)

OutputFormat = Literal["text", "json", "csv", "md", "latex"]

WIDE_TREE = 160
"""Columns of a tree in a pipe or a file."""
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
    redact = redactor()

    def without(part: Any) -> Any:
        if isinstance(part, str):
            return redact(part)
        if isinstance(part, Mapping):
            return {without(name): without(item) for name, item in part.items()}
        if isinstance(part, list | tuple):
            return [without(item) for item in part]
        return part

    return without(value)


def print_table(table: Table) -> None:
    """Print a table; see `print_tables`."""
    print_tables("text", [table])


def _print_layout(table: Table, width: int | None) -> Sequence[str]:
    """Print a table as text, and return the columns that have no room."""
    from toxtrail.reporting.terminal_table import Styles, layout_table

    styles = Styles(
        lambda line: click.style(line, bold=True),
        lambda line, text: click.style(line, fg=_colour(text)) if _colour(text) else line,
    )
    layout = layout_table(table, width, partial(shown_on, sys.stdout), styles)
    echo_lines(layout.lines)
    return layout.left_out


def format_bytes(size: float | None) -> str:
    """Format bytes: 1.23 GB."""
    if size is None:
        return "unknown"
    for unit, bytes_ in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= bytes_:
            scaled = size / bytes_
            return f"{scaled:,.0f} {unit}" if scaled >= 100 else f"{scaled:.3g} {unit}"
    return f"{size:.0f} bytes"


def terminal_width() -> int | None:
    """Return the width of the terminal, or COLUMNS; None for a pipe or a file without COLUMNS,
    where nothing is folded or left out."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal():
        return shutil.get_terminal_size().columns
    return None


def echo_note(text: str, *, bold: bool = False, fg: str | None = None, err: bool = False) -> None:
    """Print a sentence, broken between words at the terminal's width."""
    from toxtrail.reporting.terminal_table import wrap_sentence

    for line in wrap_sentence(text, terminal_width()):
        echo(line, bold=bold or None, fg=fg, err=err)


def echo_labelled(label: str, text: str, fg: str) -> None:
    """Print a coloured label and its text, broken between words at the terminal's width."""
    from toxtrail.reporting.terminal_table import wrap_sentence

    first, *others = (
        part
        for line in f"{label} {text}".splitlines()
        for part in wrap_sentence(line, terminal_width())
    )
    echo(label, fg=fg, nl=False)
    for line in (first.removeprefix(label), *others):
        echo(line)


def echo_tree(tree: Tree) -> None:
    """Print a tree, folded between words to the terminal's width."""
    console(terminal_width() or WIDE_TREE).print(tree)


def _width_note(left_out: Sequence[str]) -> list[str]:
    """Return which columns have no room, and where they are; empty if all have."""
    from toxtrail.reporting.text import short_line

    if not left_out:
        return []
    context = click.get_current_context(silent=True)
    options = {option.name for option in context.command.params} if context else set()
    forms = [f"--{form}" for form in ("csv", "json") if f"as_{form}" in options]
    places = " or ".join([*forms[:1], "a wider terminal"])
    names = ", ".join(dict.fromkeys(left_out))
    return [
        short_line(
            f"Not shown at {terminal_width()} columns: {names}. Use {places}.",
            f"Not shown at {terminal_width()} columns: {names} (see {places}).",
            f"Not shown: {names}. Use {places}.",
        )
    ]


def _colour(cell: str) -> str:
    return COLOURS.get(cell) or COLOURS.get(cell.split(" ")[0], "")


def print_tables(
    form: OutputFormat,
    tables: Sequence[Table],
    notes: Sequence[str] = (),
    heads: Sequence[str] = (),
) -> None:
    """Print tables and notes, as text, Markdown or LaTeX; the most important table is last.

    As text, columns that do not fit the terminal are left out by their priority, and a line names
    them. In a pipe or a file, each row is one line with all columns.
    """
    if form == "text":
        left_out = [name for table in tables for name in _print_layout(table, terminal_width())]
        for note in (*notes, *_width_note(left_out)):
            echo_note(note)
        for head in heads:
            echo_note(head, bold=True)
        return
    render, escape = (as_markdown, escape_markdown) if form == "md" else (as_latex, escape_latex)
    lines = [f"{escape(note)}\n" for note in (*notes, *heads)]
    echo_markdown("\n".join([*map(render, tables), *lines, ""]))


def echo_markdown(text: str) -> None:
    """Print Markdown or LaTeX, for a program: without secrets and control characters, in UTF-8."""
    echo_data(shown(text, keep="\n"))
