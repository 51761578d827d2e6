"""Tables for people, JSON for programs; other people's text made harmless for a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

json_option: Callable[[Any], Any] = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON for a program instead of a table."
)

WIDE = 190
"""Columns of a table that goes to a pipe or a file."""


def print_json(value: object) -> None:
    """Indented JSON on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False))


def print_table(
    title: str | None, columns: Sequence[str], rows: Sequence[Sequence[object]]
) -> None:
    """A table as wide as it needs in a pipe, and folded to the terminal's width in one.

    Columns whose name ends in `>` are right-aligned.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else WIDE)
    table = Table(box=SIMPLE_HEAD, title=title and Text(title, style="bold"), title_justify="left")
    for column in columns:
        table.add_column(
            Text(column.rstrip(">")),
            justify="right" if column.endswith(">") else "left",
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(printable(str(cell))) for cell in row))
    console.print(table)


def printable(text: str) -> str:
    """Control characters and escape codes shown, not sent: the text may be a model's."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
